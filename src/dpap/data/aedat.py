"""AEDAT 3.1, the file format of recordings by event cameras
(https://inivation.github.io/inivation-docs/Software%20user%20guides/AEDAT_file_formats.html).
"""

import struct
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt32

from dpap.data.events import Events

VERSION = b"#!AER-DAT3.1"
END = b"#!END-HEADER"
PACKET = struct.Struct("<hhiiiiii")
POLARITY = 1
POLARITY_SIZE = 8
LINE = 1 << 12
"""So many bytes a line of the header may have."""
PART = 1 << 14
"""So many events are decoded at a time."""


def _pass_header(file: BufferedIOBase, path: Path) -> None:
    """Read up to where the first packet starts: after the last line of the header."""
    line = file.readline(LINE)
    if not line.startswith(VERSION):
        raise ValueError(f"{path} must start with {VERSION.decode()}; got {line[: len(VERSION)]!r}")
    while line.startswith(b"#") and line.endswith(b"\n"):
        if line.strip() == END:
            return
        line = file.readline(LINE)
    raise ValueError(f"{path} must have a header that ends with the line {END.decode()}; there is none")


def read_aedat(path: Path) -> Iterator[Events]:
    """The valid polarity events of a file, up to `PART` at a time; packets of other kinds are passed over.

    A packet has a header of 28 bytes, little-endian: type and source (16 bits each), size of an event,
    offset of its timestamp, overflows of the timestamp, capacity, number of events, number of valid ones
    (32 bits each). A polarity event has 32 bits (bit 0 valid, 1 polarity, 2-16 y, 17-31 x) and 32 bits of
    microseconds, to which each overflow adds 2^31.

    Raises:
        ValueError: version, header or packets are not as published, or the file is cut short.
    """
    words, times, filled = np.empty(PART, np.uint32), np.empty(PART, np.int64), 0
    with path.open("rb") as file:
        _pass_header(file, path)
        position, end = file.tell(), path.stat().st_size
        while header := file.read(PACKET.size):
            if len(header) < PACKET.size:
                raise ValueError(
                    f"{path} ends in a packet header: {PACKET.size} bytes expected, got {len(header)}"
                )
            kind, _, size, offset, overflows, _, number, _ = PACKET.unpack(header)
            position += PACKET.size
            if size <= 0 or number < 0 or size * number > end - position:
                raise ValueError(
                    f"{path} must have {number} events of {size} bytes in the packet at byte {position}; "
                    f"got {end - position} bytes: it is cut short or damaged"
                )
            position += size * number
            if kind != POLARITY:
                file.seek(position)
                continue
            if (size, offset) != (POLARITY_SIZE, 4) or overflows < 0:
                raise ValueError(
                    f"{path} must have polarity events of {POLARITY_SIZE} bytes, timestamp at 4, 0 overflows or more; "
                    f"got {size}, {offset} and {overflows}"
                )
            while number:
                taken = min(number, PART - filled)
                raw = file.read(POLARITY_SIZE * taken)
                if len(raw) < POLARITY_SIZE * taken:
                    raise ValueError(f"{path} became shorter while it was read: wait until it is written")
                packet = np.frombuffer(raw, "<u4").reshape(-1, 2)
                words[filled : filled + taken] = packet[:, 0]
                times[filled : filled + taken] = packet[:, 1]
                times[filled : filled + taken] += overflows << 31
                filled, number = filled + taken, number - taken
                if filled == PART:
                    yield _decoded(words, times)
                    filled = 0
    if filled:
        yield _decoded(words[:filled], times[:filled])


def _decoded(words: UInt32[np.ndarray, "event"], times: Int64[np.ndarray, "event"]) -> Events:
    """The valid ones of some polarity events, as copies."""
    valid = words & 1 == 1
    word = words[valid].astype(np.int64)
    return Events(x=word >> 17, y=word >> 2 & 0x7FFF, polarity=word >> 1 & 1, time=times[valid])
