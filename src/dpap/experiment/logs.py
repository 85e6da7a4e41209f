"""The records of a run for other programs that show them: TensorBoard."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from dpap.experiment.config import TrainingConfig
from dpap.experiment.errors import UserError
from dpap.experiment.run_folder import RunFolder
from dpap.experiment.sealed import Record, intact_lines
from dpap.export.requirements import to_install


class Log:
    """Writes nothing; the base of what does."""

    def epoch(self, record: Record, survival: Record | None) -> None:
        """An epoch is over: its line of metrics.jsonl, and that of survival.jsonl where it has one."""

    def close(self) -> None:
        """The run is over, well or not."""


class TensorBoard(Log):
    """Scalars of every number in metrics.jsonl, and histograms of the survival of what is alive, by epoch."""

    def __init__(self, folder: RunFolder) -> None:
        self._writer = _writer_class()(log_dir=str(folder.tensorboard))

    def epoch(self, record: Record, survival: Record | None) -> None:
        """Write the epoch down, and flush it to the disk."""
        step = record["epoch"]
        for name, value in scalars(record):
            self._writer.add_scalar(name, value, step)
        for name, units in (survival or {"layers": {}})["layers"].items():
            alive = [unit for unit in units if unit is not None]
            if alive:
                self._writer.add_histogram(f"survival/{name}", torch.tensor(alive), step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def check_log(training: TrainingConfig) -> None:
    """Raises UserError when what the log needs is not installed."""
    if training.log == "tensorboard":
        _writer_class()


def open_log(training: TrainingConfig, folder: RunFolder, records: Sequence[Record]) -> Log:
    """The log of a run.

    Args:
        training: says which.
        folder: of the run; a log that is there is written anew, so that no epoch stands in it twice.
        records: of the epochs that are over.
    """
    if training.log is None:
        return Log()
    folder.clear_log()
    log = TensorBoard(folder)
    survival: dict[int, Record] = {}
    if records and folder.survival.exists():
        survival = {line["epoch"]: line for line in intact_lines(folder.survival)[0].values()}
    for record in records:
        log.epoch(record, survival.get(record["epoch"]))
    return log


def scalars(record: Record) -> Iterator[tuple[str, float]]:
    """The numbers of a line of metrics.jsonl, by names in which "/" goes one level down."""
    for key, value in record.items():
        if key != "epoch":
            yield from _numbers(key, value)


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(f"{name}/{key}", inner)
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            named = isinstance(inner, dict) and "name" in inner
            yield from _numbers(f"{name}/{inner['name'] if named else place}", inner)


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(
            f"training.log tensorboard needs the package tensorboard: {to_install('tensorboard')} ({error})"
        ) from error
    return SummaryWriter
