"""What a run tells while it runs: nothing, plain lines, or a live bar."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Quiet:
    """Says nothing; the others say more."""

    def begin_epoch(self, epoch: int, epochs: int, batches: int) -> None:
        """An epoch begins."""

    def batch(self, done: int) -> None:
        """So many batches of the epoch are done."""

    def end_epoch(self, record: dict[str, Any], epochs: int, seconds_left: float) -> None:
        """An epoch is over and written down."""

    def say(self, text: str) -> None:
        """Something worth a line."""

    def close(self) -> None:
        """The run is over, well or not."""


class Lines(Quiet):
    """One plain line an epoch, without control characters: for files and pipes."""

    def end_epoch(self, record: dict[str, Any], epochs: int, seconds_left: float) -> None:
        self.say(epoch_line(record, epochs, seconds_left))

    def say(self, text: str) -> None:
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

    def say(self, text: str) -> None:
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
    parts.append(f"{duration(seconds_left)} left")
    line = "  ".join(parts)
    if record["compacted"]:
        shrunk = record["compacted"]
        line += f"\n  compacted: {shrunk['parameters_before']:,} -> {shrunk['parameters_after']:,} parameters"
    return line


def duration(seconds: float) -> str:
    """A time that one can read: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
