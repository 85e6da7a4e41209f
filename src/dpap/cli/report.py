"""`dpap report`."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from dpap.experiment.comparing.results import RESULTS
from dpap.experiment.errors import UserError, blame
from dpap.report import write_comparison, write_report, write_side_by_side


def add_arguments(parser: ArgumentParser) -> None:
    """Give `parser` the subcommand's flags."""
    parser.add_argument("run", nargs="+", help="folder of a run or of a comparison, or of several runs")
    parser.add_argument(
        "--out",
        help="of several runs: folder to write to (default: runs/side-by-side); else it is in that of the run",
    )


def run(parser: ArgumentParser, given: Namespace, command: str) -> None:
    """Write the page and print its path."""
    folders = [Path(each) for each in given.run]
    if len(folders) == 1 and given.out is not None:
        raise UserError(f"--out is for several runs: the report of {folders[0]} is written into it")
    with blame("the report"):
        if len(folders) > 1:
            print(write_side_by_side(folders, Path(given.out or "runs/side-by-side")))
        elif (folders[0] / RESULTS).is_file():
            print(write_comparison(folders[0]))
        else:
            print(write_report(folders[0]))
