"""The header of a safetensors file, checked before a library reads it: forged ones take many times their size."""

import json
from pathlib import Path
from typing import Any

HEADER = 100_000_000
"""So many bytes a header may have, by the format."""
MEMORY = 8
"""So many times the size of its file a header may take when it is read."""
ALWAYS = 1 << 24
"""So many bytes any may take."""
COSTS = {b'"dtype"': 800, b":": 130, b",": 40, b"[": 64, b"{": 64}
"""Bytes that what stands for a tensor, an entry, a value, a list and an object takes at most, in what reads it."""
LENGTH = 8


def check_header(path: Path) -> None:
    """Check that a header is JSON, no key of it twice, and does not take much more memory than its file has bytes.

    Raises:
        ValueError: where it is not so.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH), "little")
        if length > min(size - LENGTH, HEADER):
            raise ValueError(f"a header of {length} bytes, in a file of {size}")
        header = file.read(length)
    if b"\\u" in header.replace(b"\\\\", b""):
        raise ValueError("letters of its header are spelled as numbers, as dpap.save never does")
    needed = sum(header.count(part) * cost for part, cost in COSTS.items())
    if needed > MEMORY * size + ALWAYS:
        raise ValueError(f"its header would take about {needed} bytes of memory, the file has {size}")
    parsed(header)


def parsed(text: str | bytes) -> Any:
    """The content of JSON text.

    Raises:
        ValueError: where it is none, nested too deep, or has a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"{name!r} stands there twice")
        content[name] = value
    return content
