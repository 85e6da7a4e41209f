"""The runs of a comparison, one after the other; whoever calls again goes on where it stopped."""

import math
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import yaml

from dpap.experiment.claim import claim, claimed, locks
from dpap.experiment.config import ExperimentConfig, load_config
from dpap.experiment.errors import UserError
from dpap.experiment.grid import Planned
from dpap.experiment.progress import Quiet, duration
from dpap.experiment.results import Result, write_results
from dpap.experiment.run_folder import RunFolder, read_lines, write_text
from dpap.experiment.train import resume, train

State = Literal["finished", "started", "failed", "to do", "being run"]


@dataclass(frozen=True)
class Comparison:
    """What came out.

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
        progress: makes what is told of each run.
        command: written into each run.

    Raises:
        UserError: when a run in the folder has another configuration; nothing is run then.
    """
    if not overwrite:
        for run in runs:
            _refuse_another(run)
    failed: list[tuple[Planned, str]] = []
    waiting = list(runs)
    for _ in range(2):  # once more for what another process was at: it may have been stopped meanwhile
        elsewhere: list[Planned] = []
        for run in waiting:
            path = RunFolder(run.config.folder)
            if path.summary.exists() and not overwrite:
                continue
            with claim(_lock(run, folder)) as ours:
                if not ours:
                    elsewhere.append(run)
                    continue
                telling = progress()
                telling.say(f"run {runs.index(run) + 1} of {len(runs)}, {run} ({_left(runs, overwrite)})")
                try:
                    _finish(run, overwrite, telling, command)
                except UserError as error:
                    failed.append((run, str(error)))
                    path.path.mkdir(parents=True, exist_ok=True)
                    write_text(path.failure, f"{error}\n")
                    telling.say(f"failed: {error}")
            write_results(runs, folder)
        waiting = elsewhere
        if not waiting:
            break
    return Comparison(write_results(runs, folder), failed, waiting)


def states(runs: Sequence[Planned], folder: Path) -> list[tuple[Planned, State, str]]:
    """How far each run is, with its epochs or its failure in words."""
    told: list[tuple[Planned, State, str]] = []
    for run in runs:
        path = RunFolder(run.config.folder)
        epochs = f"{len(read_lines(path.metrics))} of {run.config.training.epochs} epochs"
        if path.summary.exists():
            told.append((run, "finished", epochs))
        elif claimed(_lock(run, folder)):
            told.append((run, "being run", epochs))
        elif path.failure.exists():
            told.append((run, "failed", path.failure.read_text(encoding="utf-8").strip()))
        else:
            told.append((run, "started" if path.holds_a_run() else "to do", epochs))
    return told


def seconds_left(runs: Sequence[Planned]) -> tuple[float, bool]:
    """Seconds that the unfinished runs will take, by the finished runs of their recipes; and whether that is all.

    Recipes without a finished run count nothing.
    """
    took: dict[str, list[float]] = {}
    for run in runs:
        path = RunFolder(run.config.folder)
        if path.summary.exists():
            took.setdefault(run.recipe, []).append(_seconds(path))
    left, whole = 0.0, True
    for run in runs:
        path = RunFolder(run.config.folder)
        if not path.summary.exists():
            if run.recipe in took:
                left += max(0.0, statistics.fmean(took[run.recipe]) - _seconds(path))
            else:
                whole = False
    return left, whole


def _left(runs: Sequence[Planned], overwrite: bool) -> str:
    finished = sum(RunFolder(run.config.folder).summary.exists() for run in runs)
    seconds, whole = seconds_left(runs)
    if overwrite or not (finished and seconds):
        return f"{finished} finished"
    return f"{finished} finished, {'about' if whole else 'more than'} {duration(seconds)} left"


def _seconds(path: RunFolder) -> float:
    parts = ("seconds", "prune_seconds", "evaluate_seconds")
    return math.fsum(record[part] for record in read_lines(path.metrics) for part in parts)


def _finish(run: Planned, overwrite: bool, progress: Quiet, command: str) -> None:
    path = RunFolder(run.config.folder)
    if overwrite or not path.holds_a_run():
        train(run.config, overwrite=overwrite, progress=progress, command=command)
    else:
        resume(path.path, progress=progress)
    path.failure.unlink(missing_ok=True)
    if path.path != run.dense:
        write_text(path.twin, os.path.relpath(run.dense, path.path) + "\n")


def _refuse_another(run: Planned) -> None:
    path = RunFolder(run.config.folder)
    if path.holds_a_run() and _stored(path, run.config) != run.config:
        raise UserError(
            f"{path.path} holds a run with another configuration; compare in another folder (--out) or "
            "begin again (--overwrite)"
        )


def _stored(path: RunFolder, config: ExperimentConfig) -> ExperimentConfig:
    """The configuration of a run folder, as if the folder had not been moved."""
    values = yaml.safe_load(path.config.read_text(encoding="utf-8"))
    if isinstance(values, dict) and {**values, "out": config.out} == config.as_dict():
        return config  # as almost always, and far quicker than to check every key
    return replace(load_config(path.config), out=config.out)


def _lock(run: Planned, folder: Path) -> Path:
    return locks(folder) / run.config.folder.relative_to(folder).as_posix().replace("/", "--")
