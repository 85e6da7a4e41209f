"""Events of a sensor binned to frames, and the files that keep the frames."""

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from dpap.data.config import DataConfig
from dpap.data.source import Source
from dpap.data.split import TensorSplit

RULE = "equal time windows, counts clipped at 255, version 1"

Frames = Iterator[UInt8[np.ndarray, "time 2 rows columns"]]
"""Of one recording after the other."""


@dataclass(frozen=True)
class Events:
    """Events of one recording: column, row, polarity (1 = brighter) and time in microseconds."""

    x: Int64[np.ndarray, "event"]
    y: Int64[np.ndarray, "event"]
    polarity: Int64[np.ndarray, "event"]
    time: Int64[np.ndarray, "event"]

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
    if height % downsample or width % downsample:
        raise ValueError(f"downsample must divide the sensor's sides {height}x{width}; got {downsample}")
    shape = (timesteps, 2, height // downsample, width // downsample)
    window = (events.time - begin) * timesteps // (end - begin)
    place = (window, events.polarity, events.y // downsample, events.x // downsample)
    flat = np.ravel_multi_index(place, shape)
    return np.bincount(flat, minlength=int(np.prod(shape))).clip(max=255).astype(np.uint8).reshape(shape)


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
        frames = np.load(path, mmap_mode="c")  # copy on write: torch wants an array that can be written
        expected = path.with_suffix(".crc32").read_text()
    except (OSError, ValueError, EOFError):
        return None
    intact = frames.dtype == np.uint8 and frames.shape == shape and _checksum(frames) == expected
    return frames if intact else None


def _checksum(frames: UInt8[np.ndarray, "..."]) -> str:
    return f"{zlib.crc32(np.ascontiguousarray(frames).data):08x}"


def cached_frames(
    folder: Path, key: str, shape: tuple[int, ...], build: Callable[[], Frames]
) -> UInt8[Tensor, "sample time 2 rows columns"]:
    """Frames [N, T, 2, H, W] as a mapped file, built sample by sample where it is missing or damaged.

    Written to a temporary name and renamed, so that no reader sees half a file.

    Raises:
        OSError: the cache folder cannot be written.
    """
    path = folder / f"{key}.npy"
    found = _mapped(path, shape)
    if found is not None:
        return torch.from_numpy(found)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        working = tempfile.TemporaryDirectory(dir=folder, prefix=".building-")
    except OSError as error:
        raise OSError(
            f"binned events cannot be kept in {folder} ({error}); set data.cache to another folder"
        ) from error
    with working as name:
        temporary = Path(name) / path.name
        frames = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        for number, sample in enumerate(build()):
            frames[number] = sample
        frames.flush()
        check = temporary.with_suffix(".crc32")
        check.write_text(_checksum(frames))
        del frames
        # The frames first: until the checksum follows, a reader takes the pair as damaged and rebuilds it.
        temporary.replace(path)
        check.replace(path.with_suffix(".crc32"))
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def event_split(
    source: Source,
    config: DataConfig,
    folder: Path,
    files: Sequence[Path],
    labels: Sequence[int],
    downsample: int,
    build: Callable[[], Frames],
) -> TensorSplit:
    """Samples with these labels that `build` makes of files in the data set's folder, unless they are cached."""
    key = fingerprint(files, folder, timesteps=config.timesteps, downsample=downsample, name=source.name)
    channels, *sides = source.shape
    shape = (len(labels), config.timesteps, channels, *(side // downsample for side in sides))
    frames = cached_frames(cache_folder(config.cache), key, shape, build)
    return TensorSplit.of(frames, torch.tensor(labels), source.event_converter(config))
