"""JSON files of a run, and the fields of their objects by the type that each must have."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Fields:
    """The fields of one JSON object, each by the type that it must have; absent and null are None."""

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, dict):
            raise ValueError(f"{where}: expected a JSON object, got {type(values).__name__}")
        self.values: dict[str, Any] = values
        self.where = where

    def _typed(self, key: str, types: tuple[type, ...], expected: str) -> Any:
        value = self.values.get(key)
        if value is not None and (not isinstance(value, types) or (isinstance(value, bool))):
            raise ValueError(f"{self.where}: expected {expected} as “{key}”, got {value!r}")
        return value

    def number(self, key: str) -> float | None:
        """A number."""
        value = self._typed(key, (int, float), "a number")
        return None if value is None else float(value)

    def whole(self, key: str) -> int | None:
        """A whole number."""
        value = self._typed(key, (int,), "a whole number")
        return None if value is None else int(value)

    def text(self, key: str) -> str | None:
        """Text."""
        value = self._typed(key, (str,), "text")
        return None if value is None else str(value)

    def mapping(self, key: str) -> dict[str, Any]:
        """An object as it is, empty where absent."""
        return dict(self._typed(key, (dict,), "an object") or {})

    def part(self, key: str) -> "Fields | None":
        """An object."""
        return Fields(self.values[key], f"{self.where}, {key}") if self.values.get(key) is not None else None

    def parts(self, key: str) -> list["Fields"]:
        """A list of objects, empty where absent."""
        entries = self._typed(key, (list,), "a list") or []
        return [Fields(entry, f"{self.where}, {key}[{i}]") for i, entry in enumerate(entries)]

    def need(self, key: str) -> int:
        """A whole number that must be there."""
        value = self.whole(key)
        if value is None:
            raise ValueError(f"{self.where}: expected a whole number as “{key}”, got none")
        return value


def read_json(path: Path) -> Any:
    """What a JSON file holds."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected JSON, got {error}. Restore the file or run again") from error


def read_lines(path: Path, missing: list[str]) -> Iterator[Fields]:
    """The records of a jsonl file; a last line that was cut off while it was written is left out."""
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    filled = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    for number, line in filled:
        try:
            yield Fields(json.loads(line), f"{path.name}, line {number}")
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            if number != filled[-1][0]:
                raise ValueError(
                    f"{path}, line {number}: expected one JSON object a line, got {error}. "
                    "Remove the line to leave this epoch out"
                ) from error
            missing.append(f"The last line of {path.name} is cut off and left out.")
