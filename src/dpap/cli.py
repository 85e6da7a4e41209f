"""The command `dpap`: parses, calls, prints."""

import shlex
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from importlib.metadata import version
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from dpap.anatomy import find_wiring
from dpap.data import DataConfig, check_data, list_datasets, load_data
from dpap.experiment.compare import compare, seconds_left, states
from dpap.experiment.comparison_table import comparison
from dpap.experiment.config import ExperimentConfig, add_experiment_flags, config_from
from dpap.experiment.costs import PICO, costs
from dpap.experiment.demo import demo, demo_table
from dpap.experiment.errors import UserError, blame
from dpap.experiment.grid import Planned, Row, comparable, plan, read_grid
from dpap.experiment.learner import build_model, example_of
from dpap.experiment.machine import choose_device
from dpap.experiment.methods import DENSE
from dpap.experiment.progress import duration, progress_for
from dpap.experiment.results import EPOCHS, RESULTS
from dpap.experiment.run_folder import write_text
from dpap.experiment.tables import quantity, text_table
from dpap.experiment.train import resume, train
from dpap.report import write_comparison, write_report

DONE, USER, INTERRUPTED = 0, 2, 130
Command = Callable[[ArgumentParser, Namespace, str], None]


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 2 the user can mend it, 130 interrupted.

    A bug is not caught: it keeps its traceback.
    """
    given = sys.argv[1:] if argv is None else argv
    parser, commands = _parser()
    before = signal.signal(signal.SIGTERM, _interrupt) if _in_main_thread() else None
    try:
        parsed = parser.parse_args(given)
        subparser, run = commands[parsed.subcommand]
        run(subparser, parsed[parsed.subcommand], shlex.join(["dpap", *given]))
    except SystemExit as stop:  # --help, --version, or flags that argparse has explained
        return int(stop.code or DONE)
    except UserError as error:
        print(f"dpap: {error}", file=sys.stderr)
        return USER
    except KeyboardInterrupt as stop:
        print("\ndpap: interrupted", *stop.args, sep="; " if stop.args else "", file=sys.stderr)
        return INTERRUPTED
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
    return DONE


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> tuple[ArgumentParser, dict[str, tuple[ArgumentParser, Command]]]:
    parser = ArgumentParser(
        prog="dpap",
        description="Make a neural network smaller and faster while it learns: developmental plasticity-inspired "
        "adaptive pruning. Begin with `dpap demo`.",
    )
    parser.add_argument("--version", action="version", version=f"dpap {version('dpap')}")
    subcommands = parser.add_subcommands(required=True, metavar="COMMAND")
    commands: dict[str, tuple[ArgumentParser, Command]] = {}

    def command(name: str, run: Command, takes: str, text: str, examples: str) -> ArgumentParser:
        made = ArgumentParser(usage=f"dpap {name} {takes}", description=f"{text} Example: {examples}")
        subcommands.add_subcommand(name, made, help=text)
        commands[name] = made, run
        return made

    made = command(
        "demo",
        _demo,
        "[--out FOLDER] [--seed N] [--overwrite] [--quiet]",
        "Train a dense and a pruned twin on embedded digits, in two minutes.",
        "dpap demo",
    )
    made.add_argument("--out", default="runs/demo", help="folder to write to")
    made.add_argument("--seed", type=int, default=0, help="of everything random")
    made.add_argument(
        "--overwrite", action="store_true", help="begin again where a demonstration lies already"
    )
    _quiet_flag(made)

    made = command(
        "train",
        _train,
        "[--config FILE] [--FIELD VALUE ...] [--overwrite] [--quiet] | --resume RUN",
        "Train one network, pruning it while it learns; or go on with a run that stopped.",
        "dpap train --config recipes/digits_snn.yaml --pruning.target 0.7 --out runs/mine",
    )
    add_experiment_flags(made)
    made.add_argument("--resume", metavar="RUN", help="go on with this run folder; takes no other setting")
    made.add_argument("--overwrite", action="store_true", help="replace the run in the folder")
    _quiet_flag(made)

    made = command(
        "compare",
        _compare,
        "[--config FILE | --grid FILE] [--FIELD VALUE ...] [--methods LIST] [--targets LIST] [--seeds LIST]",
        "Train a recipe by several methods, over targets and seeds, beside dense twins; the same command goes on.",
        "dpap compare --config recipes/digits_snn.yaml --methods '[dpap, magnitude]' --targets '[0.5, 0.7]'",
    )
    add_experiment_flags(made)
    made.add_argument(
        "--grid", metavar="FILE", help="YAML list of rows: recipe, methods, targets, seeds, set, name"
    )
    made.add_argument(
        "--methods", type=list[str], default=[DENSE, "dpap"], help="what is compared; a wrong name lists all"
    )
    made.add_argument(
        "--targets", type=list[float], default=[], help="of methods that prune; else the recipe's own"
    )
    made.add_argument(
        "--seeds",
        type=list[int],
        default=[0, 1, 2],
        help="each method once per seed; with data.folds, each its own fold",
    )
    made.add_argument("--dry-run", action="store_true", help="only list the runs and how far they are")
    made.add_argument("--overwrite", action="store_true", help="begin again")
    _quiet_flag(made)

    made = command(
        "report",
        _report,
        "RUN",
        "Write figures and an HTML page from what a run, or a comparison, recorded.",
        "dpap report runs/mine",
    )
    made.add_argument("run", help="folder of a run or of a comparison")

    made = command(
        "inspect",
        _inspect,
        "[--config FILE] [--FIELD VALUE ...]",
        "Show the wiring and the cost of a network without training it.",
        "dpap inspect --config recipes/digits_snn.yaml --network.width 2",
    )
    add_experiment_flags(made)

    made = command(
        "data",
        _data,
        "[NAME] [--root FOLDER] [--FIELD VALUE ...]",
        "List the data sets, or read one through and say what is in it.",
        "dpap data; dpap data mnist --root ~/data",
    )
    made.add_argument("set", nargs="?", help="name of a data set, or package.module:factory; none lists them")
    made.add_class_arguments(DataConfig, None, skip={"name"})
    return parser, commands


def _quiet_flag(parser: ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="only results and errors")


def _demo(parser: ArgumentParser, given: Namespace, command: str) -> None:
    folder = Path(given.out)
    with _go_on_by(command):
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


def _train(parser: ArgumentParser, given: Namespace, command: str) -> None:
    config = config_from(parser, given)
    progress = progress_for(given.quiet)
    if given.resume is not None:
        if given.config or given.overwrite or config != ExperimentConfig():
            raise UserError("--resume takes the run's own configuration; give no other setting but --quiet")
        path = Path(given.resume)
        with _go_on_by(f"dpap train --resume {path}"):
            summary = resume(path, progress=progress)
    else:
        path = config.folder
        with _go_on_by(f"dpap train --resume {path}"):
            summary = train(config, overwrite=given.overwrite, progress=progress, command=command)
    before, after = summary["before"], summary["after"]
    print(
        f"test accuracy {summary['final_test_accuracy']:.2%} (epoch {summary['final_epoch']}, protocol "
        f"{summary['protocol']}), {summary['sparsity']:.1%} of the weights pruned, "
        f"{before['parameters']:,} -> {after['parameters']:,} parameters"
    )
    print(f"run: {path}   figures: dpap report {path}")


def _compare(parser: ArgumentParser, given: Namespace, command: str) -> None:
    flags = shlex.split(command)[2:]
    folder, rows = _rows(parser, given, flags)
    runs = plan(rows, folder)
    if given.dry_run:
        _list_runs(runs, folder)
        return
    with _go_on_by(command):
        done = compare(
            runs,
            folder,
            overwrite=given.overwrite,
            progress=partial(progress_for, given.quiet),
            command=command,
        )
    missing = [f"{run} failed: {why}" for run, why in done.failed]
    missing += [f"{run} is being run by another process" for run in done.elsewhere]
    text = comparison(done.results, missing)
    write_text(folder / "comparison.md", text)
    print(f"\n{text}")
    print(f"every run: {folder / RESULTS}   every epoch: {folder / EPOCHS}")
    if done.results:
        print(f"figures: {write_comparison(folder)}")
    if done.failed:
        raise UserError(f"{len(done.failed)} of {len(runs)} runs failed; the same command tries them again")


def _rows(parser: ArgumentParser, given: Namespace, flags: list[str]) -> tuple[Path, list[Row]]:
    """The comparison's folder and rows."""
    protocol_given = any(flag.partition("=")[0] == "--protocol" for flag in flags)
    if given.grid is None:
        config = config_from(parser, given)
        own = comparable(config, protocol_given)
        return config.folder, [Row(config.name, own, given.methods, given.targets, given.seeds)]
    if given.config:
        raise UserError("--grid names its recipes; give no --config with it")
    rows = read_grid(
        Path(given.grid),
        methods=given.methods,
        targets=given.targets,
        seeds=given.seeds,
        protocol_given=protocol_given,
        settle=lambda config: config_from(parser, parser.parse_args(["--config", config.as_yaml(), *flags])),
    )
    return Path(given.out or Path("runs") / Path(given.grid).stem), rows


def _list_runs(runs: list[Planned], folder: Path) -> None:
    told = states(runs, folder)
    print(text_table(["run", "state", ""], [[str(run), state, more] for run, state, more in told]))
    seconds, whole = seconds_left(runs)
    finished = sum(state == "finished" for _, state, _ in told)
    print(
        f"\n{finished} of {len(runs)} runs are finished; the others take {'' if whole else 'more than '}",
        end="",
    )
    print(f"{duration(seconds)} by the finished runs of their recipes" if seconds else "a time not known yet")


def _report(parser: ArgumentParser, given: Namespace, command: str) -> None:
    folder = Path(given.run)
    with blame("the report"):
        print(write_comparison(folder) if (folder / RESULTS).is_file() else write_report(folder))


def _inspect(parser: ArgumentParser, given: Namespace, command: str) -> None:
    config = config_from(parser, given)
    device = choose_device(config.training.device)
    with blame("the data"):
        data = load_data(config.data)
    model = build_model(config, data, device)
    print(find_wiring(model, (example_of(data, device),)))
    cost = costs(model, data, device, config.network.spiking)
    print()
    print(
        text_table(
            ["layer", "units", "features", "weights"],
            [
                [each["name"], *(f"{each[part]:,}" for part in ("units", "features", "weights"))]
                for each in cost["layers"]
            ],
        )
    )
    print(f"\n{cost['parameters']:,} parameters, {cost['weights']:,} weights")
    print(
        f"a sample takes {cost['macs']:,} MACs, {cost['synaptic_operations']:,.0f} synaptic operations untrained, "
        f"{quantity(cost['energy'], 'J')} by (14), {quantity(cost['latency_seconds'], 's')} on {device}"
    )
    print(
        f"counted, the operations take {quantity(cost['picojoules'] * PICO, 'J')}: {cost['accumulates']:,.0f} "
        f"additions, {cost['multiplies']:,.0f} multiplications with addition"
    )


def _data(parser: ArgumentParser, given: Namespace, command: str) -> None:
    if given.set is None:
        for source in list_datasets():
            print(f"{source.name}\n  {source.what}\n  {source.homepage}\n  {source.layout}")
        return
    with blame("the data"):
        values = {field.name: given[field.name] for field in fields(DataConfig) if field.name != "name"}
        print(check_data(DataConfig(name=given.set, **values)))


@contextmanager
def _go_on_by(command: str) -> Iterator[None]:
    """An interruption tells how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"go on with: {command}") from None
