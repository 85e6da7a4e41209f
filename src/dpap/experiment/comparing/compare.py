"""The runs of a comparison, one after the other; called again, it goes on where it stopped."""

import math
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from dpap.data import DataConfig, load_data
from dpap.experiment.comparing.grid import Planned
from dpap.experiment.comparing.results import Result, write_results
from dpap.experiment.config import ExperimentConfig, load_run_config, read_yaml
from dpap.experiment.errors import UserError, blame
from dpap.experiment.formatting import duration
from dpap.experiment.locks import comparison_lock, is_held
from dpap.experiment.progress import Quiet
from dpap.experiment.sealed import read_lines, read_text
from dpap.experiment.train import resume, train
from dpap.files import write_text

State = Literal["finished", "started", "failed", "to do", "being run"]


@dataclass(frozen=True)
class Comparison:
    """The outcome of a comparison.

    Attributes:
        results: of the finished runs, in the order of the plan.
        failed: runs that could not be finished, and why.
        elsewhere: runs that other processes are working on.
    """

    results: list[Result]
    failed: list[tuple[Planned, str]]
    elsewhere: list[Planned]


def compare(
    runs: Sequence[Planned],
    folder: Path,
    *,
    overwrite: bool = False,
    progress: Callable[[], Quiet] = Quiet,
    command: str = "",
) -> Comparison:
    """Run what is not finished yet; results.csv and epochs.csv are written after each run.

    A run that fails is written down and left, and tried again when the comparison is called again. Processes that are
    given the same runs and folder share the work.

    Args:
        runs: from `plan`.
        folder: that was given to `plan`.
        overwrite: begin again with runs that are there.
        progress: makes what prints the progress of a run.
        command: written into each run.

    Raises:
        UserError: when a run in the folder has another configuration; nothing is run then.
    """
    check_plan(runs, overwrite)
    failed: list[tuple[Planned, str]] = []
    waiting = list(runs)
    for _ in range(2):  # once more for the runs of other processes: they may have been stopped meanwhile
        elsewhere: list[Planned] = []
        for run in waiting:
            if run.files.summary.exists() and not overwrite:
                continue
            if run.source in elsewhere:
                elsewhere.append(run)
                continue
            try:
                acquired = _lock(run, folder).acquire(blocking=False)
            except Timeout:
                elsewhere.append(run)
                continue
            with acquired:
                shown = progress()
                shown.message(f"run {runs.index(run) + 1} of {len(runs)}, {run} ({_left(runs, overwrite)})")
                try:
                    _finish(run, overwrite, shown, command)
                except UserError as error:
                    failed.append((run, str(error)))
                    run.files.path.mkdir(parents=True, exist_ok=True)
                    write_text(run.files.failure, f"{error}\n")
                    shown.message(f"failed: {error}")
            write_results(runs, folder)
        waiting = elsewhere
        if not waiting:
            break
    return Comparison(write_results(runs, folder), failed, waiting)


def check_plan(runs: Sequence[Planned], overwrite: bool) -> None:
    """Raises UserError when a run in the folder has another configuration, and may not be overwritten."""
    own = {run.config.folder for run in runs}
    for run in (*runs, *(run.source for run in runs if run.source is not None)):
        if not (overwrite and run.config.folder in own):
            _refuse_another(run)


def check_data_of(runs: Sequence[Planned], *, overwrite: bool = False) -> None:
    """Read the data of the runs that are not finished, once where they share it.

    Raises:
        UserError: where it is missing or damaged: every run of its recipes would fail for it.
    """
    users: list[tuple[DataConfig, list[str]]] = []
    for run in runs:
        if overwrite or not run.files.summary.exists():
            data = replace(run.config.data, fold=0)  # each seed tests on its own fold of the same samples
            same = next((recipes for known, recipes in users if known == data), None)
            if same is None:
                users.append((data, same := []))
            same.append(run.recipe)
    wrong: dict[str, list[str]] = {}
    for data, recipes in users:
        try:
            with blame("the data"):
                load_data(data)
        except UserError as error:
            wrong.setdefault(str(error), []).extend(recipes)
    if wrong:
        lines = [f"{', '.join(dict.fromkeys(recipes))}: {why}" for why, recipes in wrong.items()]
        raise UserError("\n".join(lines) + "\nNo run was begun: mend this, and give the same command again")


def states(runs: Sequence[Planned], folder: Path) -> list[tuple[Planned, State, str]]:
    """How far each run is, with its epochs or its failure in words."""
    found: list[tuple[Planned, State, str]] = []
    for run in runs:
        files = run.files
        epochs = f"{len(read_lines(files.metrics))} of {run.config.training.epochs} epochs"
        if files.summary.exists():
            found.append((run, "finished", epochs))
        elif is_held(_lock(run, folder)):
            found.append((run, "being run", epochs))
        elif files.failure.exists():
            found.append((run, "failed", read_text(files.failure).strip()))
        else:
            found.append((run, "started" if files.holds_a_run() else "to do", epochs))
    return found


def seconds_left(runs: Sequence[Planned]) -> tuple[float, bool]:
    """Seconds that the unfinished runs will take, by the finished runs of their recipes; and whether that is all.

    Recipes without a finished run count nothing.
    """
    took: dict[str, list[float]] = {}
    for run in runs:
        if run.files.summary.exists():
            took.setdefault(run.recipe, []).append(_seconds(run))
    left, whole = 0.0, True
    for run in runs:
        if not run.files.summary.exists():
            if run.recipe in took:
                left += max(0.0, statistics.fmean(took[run.recipe]) - _seconds(run))
            else:
                whole = False
    return left, whole


def _left(runs: Sequence[Planned], overwrite: bool) -> str:
    finished = sum(run.files.summary.exists() for run in runs)
    seconds, whole = seconds_left(runs)
    if overwrite or not (finished and seconds):
        return f"{finished} finished"
    return f"{finished} finished, {'about' if whole else 'more than'} {duration(round(seconds))} left"


def _seconds(run: Planned) -> float:
    parts = ("seconds", "prune_seconds", "evaluate_seconds")
    with blame(str(run.files.metrics)):
        return math.fsum(record[part] for record in read_lines(run.files.metrics) for part in parts)


def _finish(run: Planned, overwrite: bool, progress: Quiet, command: str) -> None:
    files = run.files
    if overwrite or not files.holds_a_run():
        train(run.config, overwrite=overwrite, progress=progress, command=command)
    else:
        # its configuration is the planned one, which was allowed
        resume(files.path, progress=progress, allow_imports=True)
    files.failure.unlink(missing_ok=True)
    if files.path != run.dense:
        write_text(files.twin, os.path.relpath(run.dense, files.path) + "\n")


def _refuse_another(run: Planned) -> None:
    files = run.files
    if files.holds_a_run() and _stored(run) != run.config:
        raise UserError(
            f"{files.path} holds a run with another configuration; compare in another folder (--out) or "
            "begin again (--overwrite)"
        )


def _stored(run: Planned) -> ExperimentConfig:
    """The configuration of a run folder, as if the folder had not been moved."""
    place: dict[str, Any] = {"out": run.config.out}
    if run.source is not None:
        place["structure"] = run.config.structure
    values = read_yaml(run.files.config)
    if isinstance(values, dict) and {**values, **place} == run.config.as_dict():
        return run.config  # the usual case, and far faster than to check every key
    return replace(load_run_config(run.files.config, allow_imports=True), **place)


def _lock(run: Planned, folder: Path) -> FileLock:
    return comparison_lock(folder, run.config.folder.relative_to(folder).as_posix().replace("/", "--"))
