"""`dpap compare`."""

import shlex
from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from dpap.cli.shared import (
    add_imports_flag,
    add_quiet_flag,
    check_folder,
    check_imports,
    continued_by,
    typed_flags,
)
from dpap.experiment.comparing.compare import Comparison, check_data_of, compare, seconds_left, states
from dpap.experiment.comparing.comparison_table import comparison
from dpap.experiment.comparing.grid import Planned, Row, comparable, plan, read_grid
from dpap.experiment.comparing.jobs import compare_in_processes
from dpap.experiment.comparing.methods import DENSE
from dpap.experiment.comparing.results import EPOCHS, RESULTS
from dpap.experiment.config import add_experiment_flags, config_from
from dpap.experiment.errors import UserError
from dpap.experiment.formatting import duration
from dpap.experiment.processes import launched
from dpap.experiment.progress import progress_for
from dpap.experiment.recipes import grid_path
from dpap.experiment.tables import text_table
from dpap.files import write_text

VARIED = {
    "--seed": "did you mean --seeds?",
    "--method": "did you mean --methods?",
    "--prune": "--methods '[dense]' prunes nothing, and every other method prunes",
    "--structure": "--methods '[dpap, scratch_widths]' trains the structure that dpap ends with from scratch",
}
"""Flags of one run that a comparison decides itself, run by run, and what to give instead."""


def add_arguments(parser: ArgumentParser) -> None:
    """Give `parser` the subcommand's flags."""
    add_experiment_flags(parser)
    parser.add_argument(
        "--grid",
        metavar="FILE | NAME",
        help="YAML list of rows: recipe, methods, targets, seeds, set, name; or the name of one of `dpap recipes`",
    )
    parser.add_argument(
        "--methods", type=list[str], default=[DENSE, "dpap"], help="what is compared; a wrong name lists all"
    )
    parser.add_argument(
        "--targets", type=list[float], default=[], help="of methods that prune; else the recipe's own"
    )
    parser.add_argument(
        "--seeds",
        type=list[int],
        default=[0, 1, 2],
        help="each method once per seed; with data.folds, each its own fold",
    )
    parser.add_argument("--dry-run", action="store_true", help="only list the runs and how far they are")
    parser.add_argument("--jobs", type=int, default=1, help="so many runs at a time, each in its own process")
    parser.add_argument("--overwrite", action="store_true", help="begin again")
    add_imports_flag(parser)
    add_quiet_flag(parser)


def run(parser: ArgumentParser, given: Namespace, command: str) -> None:
    """Train what is not finished, print the table and write the page; or list the runs."""
    typed = typed_flags(parser, command)
    for flag, instead in VARIED.items():
        if flag in typed:
            raise UserError(f"{flag} is of one run, and compare decides it for each of its runs: {instead}")
    folder, rows = _rows(parser, given, shlex.split(command)[2:], typed)
    for row in rows:
        check_imports(row.config, given, command)
    runs = plan(rows, folder)
    if given.dry_run:
        _list_runs(runs, folder)
        return
    if launched() > 1:
        raise UserError(
            "compare is started once, without torchrun; --jobs says how many runs are trained at a time"
        )
    if given.jobs < 1:
        raise UserError(f"--jobs must be at least 1; got {given.jobs}")
    check_folder(folder, "a comparison")
    with continued_by(command):
        check_data_of(runs, overwrite=given.overwrite)
        if given.jobs > 1:
            done = compare_in_processes(
                runs,
                folder,
                given.jobs,
                overwrite=given.overwrite,
                quiet=given.quiet,
                command=command,
            )
        else:
            done = compare(
                runs,
                folder,
                overwrite=given.overwrite,
                progress=partial(progress_for, given.quiet),
                command=command,
            )
    text = comparison(done.results, _missing(done))
    write_text(folder / "comparison.md", text)
    print(f"\n{text}")
    print(f"every run: {folder / RESULTS}   every epoch: {folder / EPOCHS}")
    if done.results:
        from dpap.report import write_comparison  # --dry-run and --help need no matplotlib

        print(f"figures: {write_comparison(folder)}")
    if done.failed:
        raise UserError(f"{len(done.failed)} of {len(runs)} runs failed; the same command tries them again")


def _missing(done: Comparison) -> list[str]:
    """Which runs are not finished, a line for each reason."""
    runs_of: dict[str, list[str]] = {}
    for run, why in done.failed:
        runs_of.setdefault(why, []).append(str(run))
    lines = [f"{'; '.join(runs)} failed: {why}" for why, runs in runs_of.items()]
    return [*lines, *(f"{run} is being run by another process" for run in done.elsewhere)]


def _rows(
    parser: ArgumentParser, given: Namespace, flags: list[str], typed: list[str]
) -> tuple[Path, list[Row]]:
    """The comparison's folder and rows."""
    protocol_given = "--protocol" in typed
    if given.grid is None:
        config = config_from(parser, given)
        own = comparable(config, protocol_given)
        return config.folder, [Row(config.name, own, given.methods, given.targets, given.seeds)]
    if given.config:
        raise UserError("--grid names its recipes; give no --config or --recipe with it")
    if "--name" in typed:
        raise UserError("--name is of one recipe; a row of a grid has its own `name`")
    rows = read_grid(
        grid_path(given.grid),
        methods=given.methods,
        targets=given.targets,
        seeds=given.seeds,
        protocol_given=protocol_given,
        settle=lambda config: config_from(parser, parser.parse_args(["--config", config.as_yaml(), *flags])),
    )
    return Path(given.out or Path("runs") / Path(given.grid).stem), rows


def _list_runs(runs: list[Planned], folder: Path) -> None:
    rows = states(runs, folder)
    print(text_table(["run", "state", ""], [[str(run), state, more] for run, state, more in rows]))
    seconds, whole = seconds_left(runs)
    finished = sum(state == "finished" for _, state, _ in rows)
    print(
        f"\n{finished} of {len(runs)} runs are finished; the others take {'' if whole else 'more than '}",
        end="",
    )
    print(f"{duration(seconds)} by the finished runs of their recipes" if seconds else "a time not known yet")
