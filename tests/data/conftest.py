"""Small files in the published formats, with contents that a test can compute by itself."""

import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

Event = tuple[int, int, int, int]  # x, y, polarity, microseconds


def idx_bytes(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def nmnist_bytes(events: list[Event]) -> bytes:
    return b"".join(
        bytes([x, y, polarity << 7 | time >> 16, time >> 8 & 255, time & 255])
        for x, y, polarity, time in events
    )


def aedat_bytes(packets: list[tuple[int, int, list[tuple[Event, bool]]]]) -> bytes:
    """Packets are (kind, overflows, [(event, valid)])."""
    parts = [
        b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n",
        b"#Start-Time: 2016-03-22 10:14:55 (TZ+0100)\r\n#!END-HEADER\r\n",
    ]
    for kind, overflows, events in packets:
        count = len(events)
        parts.append(struct.pack("<hhiiiiii", kind, 1, 8, 4, overflows, count, count, count))
        for (x, y, polarity, time), valid in events:
            parts.append(struct.pack("<II", x << 17 | y << 2 | polarity << 1 | valid, time))
    return b"".join(parts)


def random_events(seed: int, count: int, side: int, duration: int, begin: int = 0) -> list[Event]:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(begin, begin + duration, count))
    xs, ys, polarities = rng.integers(0, side, count), rng.integers(0, side, count), rng.integers(0, 2, count)
    return [(int(x), int(y), int(p), int(t)) for x, y, p, t in zip(xs, ys, polarities, times, strict=True)]


def slow_frames(
    events: list[Event], timesteps: int, side: int, begin: int, end: int, factor: int = 1
) -> np.ndarray:
    """The binning rule, event by event."""
    frames = np.zeros((timesteps, 2, side // factor, side // factor), np.int64)
    for x, y, polarity, time in events:
        window = 0
        while time * timesteps >= begin * timesteps + (window + 1) * (end - begin):
            window += 1
        frames[window, polarity, y // factor, x // factor] += 1
    return np.minimum(frames, 255)


@pytest.fixture
def formats() -> object:
    """The writers above, for tests (which cannot import a conftest)."""
    return sys.modules[__name__]


@pytest.fixture
def mnist_root(tmp_path: Path) -> Path:
    """40 + 20 random images in torchvision's layout; images gzipped, labels not."""
    import gzip

    rng = np.random.default_rng(0)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 40), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        images[:, 0, 0] = np.arange(count)  # a pixel identifies every image
        (raw / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
        labels = np.arange(count, dtype=np.uint8) % 10
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return tmp_path


@pytest.fixture
def cifar_root(tmp_path: Path) -> Path:
    """Six files of 8 records: pixel (row, column) of channel c of image n of a file is known."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for number, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        rng = np.random.default_rng(number)
        records = [bytes([k % 10]) + rng.integers(0, 256, 3072, dtype=np.uint8).tobytes() for k in range(8)]
        (folder / f"{name}.bin").write_bytes(b"".join(records))
    return tmp_path


@pytest.fixture
def nmnist_root(tmp_path: Path) -> Path:
    """Three training and two test recordings of each of the digits 0 and 7."""
    for part, count in (("Train", 3), ("Test", 2)):
        for digit in (0, 7):
            folder = tmp_path / "NMNIST" / part / str(digit)
            folder.mkdir(parents=True)
            for number in range(count):
                seed = 100 * digit + 10 * count + number
                events = random_events(seed, 200, 34, 300_000, begin=seed)
                (folder / f"{number:05d}.bin").write_bytes(nmnist_bytes(events))
    return tmp_path


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Write a module that can be imported until the test ends."""
    monkeypatch.syspath_prepend(str(tmp_path))
    written: list[str] = []

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        written.append(name)

    yield write
    for name in written:
        sys.modules.pop(name, None)
