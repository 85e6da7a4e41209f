"""The files of a run and how they are written: a power cut at any moment leaves a run that can go on."""

import datetime
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpap.experiment.errors import UserError

Record = dict[str, Any]

REPORT_MARK = "dpap report"
"""In every file that the report of a run writes: only these are removed with the run."""


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
    def kept(self) -> Path:
        """The checkpoint of the epoch that the protocol has chosen so far."""
        return self.path / "kept.pt"

    @property
    def model(self) -> Path:
        """The compact network."""
        return self.path / "model.safetensors"

    @property
    def summary(self) -> Path:
        """What came out; written last."""
        return self.path / "summary.json"

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

    def check_free(self, overwrite: bool) -> None:
        """Raises UserError when it holds a run that may not be overwritten, or files that no run wrote and a run would
        replace.
        """
        if self.facts.exists():
            if self.holds_a_run() and not overwrite:
                raise UserError(
                    f"{self.path} already holds a run; go on with it (--resume {self.path}), replace it "
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
            raise UserError(f"cannot make the run folder {self.path}: {error.strerror}") from error

    def begin(self, config: str, facts: Record) -> None:
        """Remove any earlier run, and write what is known at the start."""
        self.clear()
        write_json(self.facts, facts)
        write_text(self.config, config)

    def clear(self) -> None:
        """Remove the files of a run, and no other."""
        for each in self._files():
            each.unlink(missing_ok=True)
            # of a process that was killed while it wrote
            for cut_off in self.path.glob(f".{each.name}.*.part"):
                cut_off.unlink(missing_ok=True)
        report = self.path / "report"
        for each in (report / "index.html", *report.glob("*.png")):
            if each.is_file() and REPORT_MARK.encode() in each.read_bytes():
                each.unlink()
        if report.is_dir() and not any(report.iterdir()):
            report.rmdir()

    def _files(self) -> tuple[Path, ...]:
        # what is written first is removed last: a folder that is cleared in part is still a run's
        return (
            self.summary,
            self.model,
            self.kept,
            self.checkpoint,
            self.survival,
            self.metrics,
            self.twin,
            self.failure,
            self.config,
            self.facts,
        )


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with_replacement(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with_replacement(path, lambda temporary: temporary.write_bytes(content))


def write_json(path: Path, record: Record) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def with_replacement(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, flush it to the disk and put it in the place of `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def append(path: Path, record: Record) -> None:
    """Add one line to a file of lines of JSON."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")


def read_json(path: Path) -> Record:
    """Read a JSON file.

    Raises:
        UserError: when it holds no JSON object.
    """
    try:
        return json_object(json.loads(path.read_bytes()), str(path))
    except ValueError as error:
        raise UserError(f"{path}: expected JSON, got {error}. Restore the file or run again") from error


def read_lines(path: Path) -> list[Record]:
    """The records of a file of lines of JSON, without a last line that was cut off.

    Raises:
        UserError: when another line holds no JSON object.
    """
    return list(numbered_lines(path)[0].values())


def numbered_lines(path: Path) -> tuple[dict[int, Record], bool]:
    """Those records by the number of their line, and whether a last line was cut off.

    Raises:
        UserError: when another line holds no JSON object.
    """
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    filled = {number: line for number, line in enumerate(lines, 1) if line.strip()}
    records: dict[int, Record] = {}
    for number, line in filled.items():
        try:
            value = json.loads(line)
        except ValueError as error:
            if number == max(filled):
                return records, True
            raise UserError(
                f"{path}, line {number}: expected one JSON object a line, got {error}. Remove the line to leave this "
                "epoch out"
            ) from error
        records[number] = json_object(value, f"{path}, line {number}")
    return records, False


def json_object(value: Any, where: str) -> Record:
    """`value`, which must be a JSON object.

    Raises:
        UserError: when it is something else.
    """
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a JSON object, got {type(value).__name__}")
    return value


def drop_lines_after(path: Path, epoch: int) -> None:
    """Keep the whole lines up to `epoch`: what lies past the checkpoint will be computed again."""
    if path.exists():
        kept = [record for record in read_lines(path) if record["epoch"] <= epoch]
        write_text(path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in kept))


def now() -> str:
    """The time, for people: ISO 8601, UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
