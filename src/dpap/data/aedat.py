"""AEDAT 3.1, the file format of recordings by event cameras
(https://inivation.github.io/inivation-docs/Software%20user%20guides/AEDAT_file_formats.html).
"""

import struct
from pathlib import Path

import numpy as np

from dpap.data.events import Events

VERSION = b"#!AER-DAT3.1"
END = b"#!END-HEADER"
PACKET = struct.Struct("<hhiiiiii")
POLARITY = 1
POLARITY_SIZE = 8


def _data_start(raw: bytes, path: Path) -> int:
    """Where the first packet starts: after the last line of the header."""
    if not raw.startswith(VERSION):
        raise ValueError(f"{path} must start with {VERSION.decode()}; got {raw[: len(VERSION)]!r}")
    start = 0
    while raw[start : start + 1] == b"#":
        stop = raw.find(b"\n", start)
        if stop < 0:
            break
        line, start = raw[start:stop], stop + 1
        if line.strip() == END:
            return start
    raise ValueError(f"{path} must have a header that ends with the line {END.decode()}; there is none")


def read_aedat(path: Path) -> Events:
    """The valid polarity events of a file; packets of other kinds are passed over.

    A packet has a header of 28 bytes, little-endian: type and source (16 bits each), size of an event,
    offset of its timestamp, overflows of the timestamp, capacity, number of events, number of valid ones
    (32 bits each). A polarity event has 32 bits (bit 0 valid, 1 polarity, 2-16 y, 17-31 x) and 32 bits of
    microseconds, to which each overflow adds 2^31.

    Raises:
        ValueError: version, header or packets are not as published, or the file is cut short.
    """
    raw = path.read_bytes()
    position = _data_start(raw, path)
    words, times = [], []
    while position < len(raw):
        if position + PACKET.size > len(raw):
            raise ValueError(
                f"{path} ends in a packet header: {PACKET.size} bytes expected, got {len(raw) - position}"
            )
        kind, _, size, offset, overflow, _, number, _ = PACKET.unpack_from(raw, position)
        position += PACKET.size
        if size <= 0 or number < 0 or position + size * number > len(raw):
            raise ValueError(
                f"{path} must have {number} events of {size} bytes in the packet at byte {position}; "
                f"got {len(raw) - position} bytes: it is cut short or damaged"
            )
        if kind == POLARITY:
            if (size, offset) != (POLARITY_SIZE, 4):
                raise ValueError(
                    f"{path} must have polarity events of {POLARITY_SIZE} bytes, timestamp at 4; "
                    f"got {size} and {offset}"
                )
            packet = np.frombuffer(raw, "<u4", count=2 * number, offset=position).reshape(-1, 2)
            words.append(packet[:, 0])
            times.append(packet[:, 1].astype(np.int64) + (overflow << 31))
        position += size * number
    word = np.concatenate(words).astype(np.int64) if words else np.empty(0, np.int64)
    time = np.concatenate(times) if times else np.empty(0, np.int64)
    valid = word & 1 == 1
    word = word[valid]
    return Events(x=word >> 17, y=word >> 2 & 0x7FFF, polarity=word >> 1 & 1, time=time[valid])
