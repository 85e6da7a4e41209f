"""The files of a run and how they are written: a power cut at any moment leaves a run that can go on."""

import datetime
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpap.experiment.errors import UserError

Record = dict[str, Any]


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
        """Whether a run was started here."""
        return self.config.exists()

    def check_free(self, overwrite: bool) -> None:
        """Raises UserError when a run lies here that may not be overwritten."""
        if self.holds_a_run() and not overwrite:
            raise UserError(
                f"{self.path} already holds a run; go on with it (--resume {self.path}), replace it "
                "(--overwrite), or choose another folder (--out)"
            )

    def begin(self, config: str, facts: Record) -> None:
        """Make the folder, empty of any earlier run, and write what is known at the start.

        Raises:
            UserError: when it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the run folder {self.path}: {error.strerror}") from error
        self.clear()
        write_json(self.facts, facts)
        write_text(self.config, config)

    def clear(self) -> None:
        """Remove the files of a run, and no other."""
        for each in (
            self.config,
            self.facts,
            self.metrics,
            self.survival,
            self.checkpoint,
            self.kept,
            self.model,
            self.summary,
            self.twin,
            self.failure,
        ):
            each.unlink(missing_ok=True)
        shutil.rmtree(self.path / "report", ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with_replacement(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, record: Record) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Record:
    """Read a JSON file.

    Raises:
        UserError: when it is damaged.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a whole JSON file: {error}") from error


def with_replacement(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, flush it to the disk and put it in the place of `path`."""
    temporary = path.with_name(f".{path.name}.part")
    write(temporary)
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def append(path: Path, record: Record) -> None:
    """Add one line to a file of lines of JSON."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")


def read_lines(path: Path) -> list[Record]:
    """The records of a file of lines of JSON, up to the first line that was not written whole."""
    records: list[Record] = []
    if not path.exists():
        return records
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def drop_lines_after(path: Path, epoch: int) -> None:
    """Keep the whole lines up to `epoch`: what lies past the checkpoint will be computed again."""
    if path.exists():
        kept = [record for record in read_lines(path) if record["epoch"] <= epoch]
        write_text(path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in kept))


def now() -> str:
    """The time, for people: ISO 8601, UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
