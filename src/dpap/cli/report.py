"""`dpap report`."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from dpap.experiment.errors import blame
from dpap.experiment.results import RESULTS
from dpap.report import write_comparison, write_report


def add_arguments(parser: ArgumentParser) -> None:
    """Give `parser` the subcommand's flags."""
    parser.add_argument("run", help="folder of a run or of a comparison")


def run(parser: ArgumentParser, given: Namespace, command: str) -> None:
    """Write the page and print its path."""
    folder = Path(given.run)
    with blame("the report"):
        print(write_comparison(folder) if (folder / RESULTS).is_file() else write_report(folder))
