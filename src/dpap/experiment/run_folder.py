"""The files of a run: a power cut at any moment leaves a run that can go on."""

import datetime
import shlex
from dataclasses import dataclass
from pathlib import Path

from dpap.experiment.errors import UserError, explained
from dpap.experiment.sealed import Record, read_json, write_json
from dpap.files import write_text

REPORT_MARK = "dpap report"
"""In every file that the report of a run writes: only these are removed with the run."""

OF_A_SUMMARY = ("epochs", "final_epoch", "final_test_accuracy", "sparsity", "before", "after")
"""What every summary has, since dpap 0.1.0."""


@dataclass(frozen=True)
class RunFolder:
    """Where the files of one run lie.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The whole configuration, YAML."""
        return self.path / "config.yaml"

    @property
    def facts(self) -> Path:
        """What was known at the start: network, data, machine, seed."""
        return self.path / "run.json"

    @property
    def metrics(self) -> Path:
        """One line an epoch: losses, accuracies, sparsities, seconds."""
        return self.path / "metrics.jsonl"

    @property
    def survival(self) -> Path:
        """One line an epoch: the survival of every unit."""
        return self.path / "survival.jsonl"

    @property
    def checkpoint(self) -> Path:
        """Everything after the last whole epoch."""
        return self.path / "checkpoint.pt"

    @property
    def previous(self) -> Path:
        """The checkpoint before that, for when the last is damaged."""
        return self.path / "checkpoint-previous.pt"

    @property
    def kept(self) -> Path:
        """The checkpoint of the epoch that the protocol has chosen so far."""
        return self.path / "kept.pt"

    @property
    def model(self) -> Path:
        """The compact network."""
        return self.path / "model.safetensors"

    @property
    def tensorboard(self) -> Path:
        """The folder of the event files of TensorBoard, where they are asked for."""
        return self.path / "tensorboard"

    @property
    def summary(self) -> Path:
        """What came out; written last."""
        return self.path / "summary.json"

    def read_summary(self) -> Record:
        """What came out.

        Raises:
            UserError: when that is damaged, or no summary.
        """
        summary = read_json(self.summary)
        lacking = [key for key in OF_A_SUMMARY if key not in summary]
        if lacking:
            raise UserError(
                f"{self.summary}: expected the summary of a run, got one without {', '.join(lacking)}. Restore the "
                "file or run again"
            )
        return summary

    @property
    def spikes(self) -> Path:
        """Spikes of one test sample, of a few neurons of each layer."""
        return self.path / "spikes.json"

    @property
    def twin(self) -> Path:
        """Relative path of the dense twin's folder, where there is one."""
        return self.path / "twin"

    @property
    def failure(self) -> Path:
        """Why the run could not go on when it was last tried in a comparison."""
        return self.path / "failure.txt"

    def holds_a_run(self) -> bool:
        """Whether a run was started in it."""
        return self.config.exists()

    @property
    def resume_flag(self) -> str:
        """What `dpap train` goes on with, as a shell takes it."""
        return shlex.join(["--resume", str(self.path)])

    @property
    def resume_command(self) -> str:
        """The command that goes on, as a shell takes it."""
        return f"dpap train {self.resume_flag}"

    def check_free(self, overwrite: bool) -> None:
        """Raises UserError when it holds a run that may not be overwritten, or files that no run wrote and a run would
        replace.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file, and a run is a folder: choose another name (--out)")
        if self.facts.exists():
            if self.holds_a_run() and not overwrite:
                raise UserError(
                    f"{self.path} already holds a run; go on with it ({self.resume_flag}), replace it "
                    "(--overwrite), or choose another folder (--out)"
                )
            return
        strange = [each.name for each in self._files() if each.exists() and each != self.failure]
        if strange:
            raise UserError(
                f"{self.path} is no run folder, for it has no {self.facts.name}, but holds {', '.join(strange)}, "
                "which a run would replace: choose another folder (--out) or move them away"
            )

    def make(self) -> None:
        """Make the folder where it is not there.

        Raises:
            UserError: when it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the run folder {explained(error)}") from error

    def begin(self, config: str, facts: Record) -> None:
        """Remove any earlier run, and write what is known at the start."""
        self.clear()
        write_json(self.facts, facts)
        write_text(self.config, config)

    def sweep(self) -> None:
        """Remove what a process that was killed had written in part."""
        for each in self._files():
            for cut_off in self.path.glob(f".{each.name}.*.part"):
                cut_off.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the files of a run, and no other."""
        self.sweep()
        for each in self._files():
            each.unlink(missing_ok=True)
        self.clear_log()
        report = self.path / "report"
        for each in (report / "index.html", *report.glob("*.png")):
            if each.is_file() and REPORT_MARK.encode() in each.read_bytes():
                each.unlink()
        if report.is_dir() and not any(report.iterdir()):
            report.rmdir()

    def clear_log(self) -> None:
        """Remove the event files of TensorBoard, and no other."""
        for each in self.tensorboard.glob("events.out.tfevents.*"):
            each.unlink()
        if self.tensorboard.is_dir() and not any(self.tensorboard.iterdir()):
            self.tensorboard.rmdir()

    def _files(self) -> tuple[Path, ...]:
        # what is written first is removed last: a folder that is cleared in part is still a run's
        return (
            self.summary,
            self.spikes,
            self.model,
            self.kept,
            self.checkpoint,
            self.previous,
            self.survival,
            self.metrics,
            self.twin,
            self.failure,
            self.config,
            self.facts,
        )


def now() -> str:
    """The time, for people: ISO 8601, UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
