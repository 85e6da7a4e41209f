"""JSON files, and files of lines of JSON, each object with a checksum: damage is found when it is read.

Objects without a checksum, as earlier versions wrote them or people do, are taken as they are.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from dpap.experiment.errors import UserError
from dpap.files import append_text, write_text

Record = dict[str, Any]

SEAL = "sha256"
"""The key of the checksum, the last of its object."""
CUT_OFF = "it was cut off"


def write_json(path: Path, record: Record) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(_sealed(record), indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def line_of(record: Record) -> str:
    """A line of a file of lines of JSON."""
    return json.dumps(_sealed(record), allow_nan=False) + "\n"


def append(path: Path, record: Record) -> None:
    """Add one line to a file of lines of JSON; it lies on the disk then."""
    append_text(path, line_of(record))


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        UserError: when it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: expected text in UTF-8, got {error}. Restore the file or run again"
        ) from error


def read_json(path: Path) -> Record:
    """Read a JSON file.

    Raises:
        UserError: when it holds no JSON object, or another than was written.
    """
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected JSON, got {error}. Restore the file or run again") from error
    return _unsealed(value, str(path))


def read_lines(path: Path) -> list[Record]:
    """The records of a file of lines of JSON, without a last line that was cut off.

    Raises:
        UserError: when another line holds no JSON object, or another than was written.
    """
    return list(numbered_lines(path)[0].values())


def numbered_lines(path: Path) -> tuple[dict[int, Record], bool]:
    """Those records by the number of their line, and whether a last line was cut off.

    Raises:
        UserError: as `read_lines`.
    """
    records, damaged = intact_lines(path)
    for why in damaged.values():
        if why == CUT_OFF:
            return records, True
        raise UserError(f"{why}. Remove the line to leave this epoch out")
    return records, False


def intact_lines(path: Path) -> tuple[dict[int, Record], dict[int, str]]:
    """The records of a file of lines of JSON by the number of their line, and what is wrong with its other lines."""
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    records: dict[int, Record] = {}
    damaged: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                records[number] = _unsealed(json.loads(line), where)
            except (ValueError, RecursionError) as error:
                expected = f"{where}: expected one JSON object a line, got {error}"
                damaged[number] = CUT_OFF if number == len(lines) else expected
            except UserError as error:
                damaged[number] = str(error)
    return records, damaged


def json_object(value: Any, where: str) -> Record:
    """`value`, which must be a JSON object.

    Raises:
        UserError: when it is something else.
    """
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a JSON object, got {type(value).__name__}")
    return value


def _sealed(record: Record) -> Record:
    return {**record, SEAL: _checksum(record)}


def _unsealed(value: Any, where: str) -> Record:
    """The object that was sealed.

    Raises:
        UserError: when it is no object, or another one than was sealed.
    """
    record = json_object(value, where)
    is_sealed = SEAL in record
    name = SEAL if is_sealed else next(reversed(record), SEAL)
    rest = {key: each for key, each in record.items() if key != name}
    # a checksum under another name is one whose name was damaged
    if (record.get(name) == _checksum(rest)) != is_sealed:
        raise UserError(f"{where}: it was changed or damaged after it was written, its checksum does not fit")
    return rest if is_sealed else record


def _checksum(record: Record) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
