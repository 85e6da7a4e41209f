"""What a run prints while it runs: nothing, plain lines, or a live bar."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dpap.experiment.formatting import duration


class Quiet:
    """Prints nothing; the base of what prints more."""

    def begin_epoch(self, epoch: int, epochs: int, batches: int) -> None:
        """An epoch begins."""

    def batch(self, done: int) -> None:
        """`done` batches of the epoch are over."""

    def end_epoch(self, record: dict[str, Any], epochs: int, seconds_left: float) -> None:
        """An epoch is over and written down."""

    def message(self, text: str) -> None:
        """A line of text."""

    def close(self) -> None:
        """The run is over, well or not."""


class Lines(Quiet):
    """One plain line an epoch, without control characters: for files and pipes."""

    def end_epoch(self, record: dict[str, Any], epochs: int, seconds_left: float) -> None:
        self.message(epoch_line(record, epochs, seconds_left))

    def message(self, text: str) -> None:
        print(text, flush=True)


class Bar(Lines):
    """The lines, and below them a bar that moves within the epoch: for terminals."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None

    def begin_epoch(self, epoch: int, epochs: int, batches: int) -> None:
        self.close()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._bar.add_task(f"epoch {epoch}/{epochs}", total=batches)
        self._bar.start()

    def batch(self, done: int) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done)

    def end_epoch(self, record: dict[str, Any], epochs: int, seconds_left: float) -> None:
        self.close()
        super().end_epoch(record, epochs, seconds_left)

    def message(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def progress_for(quiet: bool) -> Quiet:
    """A bar on a terminal, lines elsewhere, nothing when quiet."""
    if quiet:
        return Quiet()
    console = Console()
    return Bar(console) if console.is_terminal else Lines()


def epoch_line(record: dict[str, Any], epochs: int, seconds_left: float) -> str:
    """One epoch in one line."""
    width = len(str(epochs))
    parts = [
        f"epoch {record['epoch']:>{width}}/{epochs}",
        f"loss {record['train_loss']:.4f}",
        f"train {record['train_accuracy']:7.2%}",
        f"test {record['test_accuracy']:7.2%}",
    ]
    if record["validation_accuracy"] is not None:
        parts.append(f"validation {record['validation_accuracy']:7.2%}")
    if record["layers"]:
        parts.append(f"pruned {record['sparsity']:6.2%}")
    if record["timestep_sparsity"]:
        parts.append(f"timesteps {record['timestep_sparsity']:6.2%}")
    parts.append(f"{record['seconds']:.1f} s")
    parts.append(f"{duration(round(seconds_left))} left")
    line = "  ".join(parts)
    if record["compacted"]:
        compacted = record["compacted"]
        line += f"\n  compacted: {compacted['parameters_before']:,} -> {compacted['parameters_after']:,} parameters"
    return line
