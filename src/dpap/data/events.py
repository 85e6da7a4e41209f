"""Events of a sensor binned to frames, and the files that keep the frames."""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Bool, Int64, Integer, UInt8
from torch import Tensor

from dpap.data.config import DataConfig
from dpap.data.source import Source
from dpap.data.split import TensorSplit

RULE = "equal time windows, counts clipped at 255, version 1"
PART = 1 << 16
"""So many events are counted at a time."""
BUILDING, LOCK = ".building.npy", ".lock"
"""In a cache folder: frames that are being written, by the process that holds the lock."""

Frames = Iterator[UInt8[np.ndarray, "time 2 rows columns"]]
"""Of one recording after the other."""


@dataclass(frozen=True)
class Events:
    """Events of one recording: column, row, polarity (1 = brighter) and time in microseconds."""

    x: Integer[np.ndarray, "event"]
    y: Integer[np.ndarray, "event"]
    polarity: Integer[np.ndarray, "event"]
    time: Int64[np.ndarray, "event"]

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, chosen: slice | Bool[np.ndarray, "event"]) -> "Events":
        return Events(self.x[chosen], self.y[chosen], self.polarity[chosen], self.time[chosen])

    def between(self, begin: int, end: int) -> "Events":
        """Those at times in [begin, end)."""
        return self[(self.time >= begin) & (self.time < end)]

    def check_pixels(self, source: Source, path: Path) -> None:
        """Raise a ValueError where an event of this file lies outside of the sensor, which is square."""
        side = source.shape[-1]
        if len(self.x) and max(self.x.max(), self.y.max()) >= side:
            raise ValueError(
                f"{path} must hold events with x and y below {side}; "
                f"got x up to {self.x.max()} and y up to {self.y.max()}; {source.advice}"
            )


def bin_events(
    events: Events, timesteps: int, height: int, width: int, begin: int, end: int, downsample: int = 1
) -> UInt8[np.ndarray, "time 2 rows columns"]:
    """Count events in `timesteps` windows of equal length over [begin, end) microseconds.

    An event at t falls into window floor((t - begin) * timesteps / (end - begin)); all arithmetic is in
    integers. Channel 0 counts polarity 0 (darker), channel 1 polarity 1; counts above 255 become 255.
    With `downsample` squares of that side are summed.
    """
    frames = blank_frames(timesteps, height, width, downsample)
    for start in range(0, len(events), PART):
        count_events(frames, events[start : start + PART], begin, end, downsample)
    return frames


def blank_frames(
    timesteps: int, height: int, width: int, downsample: int = 1
) -> UInt8[np.ndarray, "time 2 rows columns"]:
    """Frames without events; raises a ValueError where `downsample` does not divide the sensor's sides."""
    if height % downsample or width % downsample:
        raise ValueError(f"downsample must divide the sensor's sides {height}x{width}; got {downsample}")
    return np.zeros((timesteps, 2, height // downsample, width // downsample), np.uint8)


def count_events(
    frames: UInt8[np.ndarray, "time 2 rows columns"], events: Events, begin: int, end: int, downsample: int
) -> None:
    """Add events, all in [begin, end), to the frames of a recording, by the rule of `bin_events`."""
    if len(events) == 0:
        return
    window = (events.time - begin) * len(frames) // (end - begin)
    first = int(window.min())
    reached = frames[first : int(window.max()) + 1]
    place = (window - first, events.polarity, events.y // downsample, events.x // downsample)
    counts = np.bincount(np.ravel_multi_index(place, reached.shape), minlength=reached.size)
    # what stopped at 255 before is above it again with any further count
    reached[...] = np.minimum(reached + counts.reshape(reached.shape), 255)


def cache_folder(configured: str | None) -> Path:
    """The configured folder, else $XDG_CACHE_HOME/dpap, else ~/.cache/dpap."""
    if configured is not None:
        return Path(configured).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "dpap"


def fingerprint(files: Sequence[Path], root: Path, **settings: Any) -> str:
    """A key that changes with the settings, the binning rule, and any file's name, size or date."""
    stats = [(path.relative_to(root).as_posix(), path.stat()) for path in files]
    content = [RULE, settings, [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The cached frames, or None where they are missing or damaged."""
    try:
        # copy on write: torch wants an array that can be written
        frames = np.lib.format.open_memmap(path, mode="c")
        expected = path.with_suffix(".crc32").read_text()
    except Exception:  # numpy and Python's parser fail in many ways on a damaged header
        return None
    fitting = frames.dtype == np.uint8 and frames.shape == shape and frames.flags.c_contiguous
    return frames if fitting and f"{zlib.crc32(frames.data):08x}" == expected else None


def cached_frames(
    folder: Path, key: str, shape: tuple[int, ...], build: Callable[[], Frames]
) -> UInt8[Tensor, "sample time 2 rows columns"]:
    """Frames [N, T, 2, H, W] as a mapped file, built sample by sample where it is missing or damaged.

    One process builds at a time, under a temporary name; what a killed one left is removed by the next that is here.

    Raises:
        OSError: the cache folder cannot be written.
    """
    path, lock = folder / f"{key}.npy", FileLock(folder / LOCK, mode=0o666)
    found = _mapped(path, shape)
    if found is not None:
        _sweep(folder, lock)
        return torch.from_numpy(found)
    with _kept_in(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        found = _mapped(path, shape)  # another process may have built it meanwhile
        if found is None:
            _build(path, shape, build)
            found = np.load(path, mmap_mode="c")
    finally:
        lock.release()
    return torch.from_numpy(found)


def _build(path: Path, shape: tuple[int, ...], build: Callable[[], Frames]) -> None:
    """Write frames and their checksum in the place of any before."""
    folder, working = path.parent, path.with_name(BUILDING)
    checksum = samples = 0
    with _kept_in(folder):
        working.unlink(missing_ok=True)  # not written over, for it may be another user's
        file = working.open("wb")
    try:
        # written, not mapped: where the disk is full, writing to a mapped file ends the process
        with file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for sample in build():
                frames = np.ascontiguousarray(sample)
                checksum, samples = zlib.crc32(frames.data, checksum), samples + 1
                with _kept_in(folder):
                    file.write(frames.data)
            with _kept_in(folder):
                file.flush()
        if samples != shape[0]:
            raise ValueError(
                f"the files must hold {shape[0]} samples, as when they were listed; got {samples}"
            )
        # The frames first: until the checksum follows, a reader takes the pair as damaged and waits for the lock.
        with _kept_in(folder):
            working.replace(path)
            path.with_suffix(".crc32").write_text(f"{checksum:08x}")
    finally:
        working.unlink(missing_ok=True)


@contextmanager
def _kept_in(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            f"binned events cannot be kept in {folder} ({error}); set data.cache to another folder"
        ) from error


def _sweep(folder: Path, lock: FileLock) -> None:
    """Remove what a process left that was killed while it built."""
    if (folder / BUILDING).exists():
        # where it is still being built, or may not be removed, it stays
        with suppress(OSError), lock.acquire(blocking=False):
            (folder / BUILDING).unlink(missing_ok=True)


def event_split(
    source: Source,
    config: DataConfig,
    folder: Path,
    files: Sequence[Path],
    labels: Sequence[int],
    build: Callable[[], Frames],
) -> TensorSplit:
    """Samples with these labels that `build` makes of files in the data set's folder, unless they are cached."""
    downsample = config.downsample or source.downsample
    key = fingerprint(files, folder, timesteps=config.timesteps, downsample=downsample, name=source.name)
    shape = (len(labels), config.timesteps, *source.sample_shape(config))
    frames = cached_frames(cache_folder(config.cache), key, shape, build)
    return TensorSplit.of(frames, torch.tensor(labels), source.event_converter(config))
