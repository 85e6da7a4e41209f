"""`dpap demo`."""

from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from dpap.cli.shared import add_quiet_flag, check_folder, continued_by
from dpap.experiment.demo import demo, demo_table
from dpap.experiment.errors import UserError
from dpap.experiment.formatting import duration
from dpap.experiment.progress import progress_for
from dpap.report import write_report


def add_arguments(parser: ArgumentParser) -> None:
    """Give `parser` the subcommand's flags."""
    parser.add_argument("--out", default="runs/demo", help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument(
        "--overwrite", action="store_true", help="begin again where a demonstration lies already"
    )
    add_quiet_flag(parser)


def run(parser: ArgumentParser, given: Namespace, command: str) -> None:
    """Train both twins, print their table and write the report of the pruned one."""
    folder = Path(given.out)
    check_folder(folder, "a comparison")
    if given.seed < 0:
        raise UserError(f"--seed must not be negative; got {given.seed}")
    with continued_by(command):
        dense, pruned = demo(
            folder,
            seed=given.seed,
            overwrite=given.overwrite,
            progress=partial(progress_for, given.quiet),
            command=command,
        )
    print(f"\n{demo_table(dense, pruned)}\n")
    print(f"training took {duration(dense.seconds)} (dense) and {duration(pruned.seconds)} (DPAP)")
    print(f"report: {write_report(folder / pruned.run)}")
