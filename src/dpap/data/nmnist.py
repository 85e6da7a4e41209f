"""N-MNIST: MNIST digits seen by a moving event camera (Orchard et al. 2015, doi 10.3389/fnins.2015.00437)."""

from pathlib import Path

import numpy as np

from dpap.data.config import DataConfig
from dpap.data.download import Remote
from dpap.data.events import Events, Frames, bin_events, event_split
from dpap.data.source import Source, is_stray
from dpap.data.split import TensorSplit
from dpap.data.transform import Augmentation

SIDE = 34
EVENT = 5
OVERFLOW_ROW = 240  # not an event: the clock of all that follow is 2^13 microseconds later
OVERFLOW_TIME = 1 << 13


def read_recording(path: Path, source: Source) -> Events:
    """Events of 5 bytes: x, y, then 1 bit of polarity and 23 bits of microseconds, big-endian.

    Raises:
        FileNotFoundError, ValueError: the file is missing, has no events or half an event, or an event
            lies outside of the 34x34 pixels.
    """
    with source.open(path) as file:
        raw = file.read()
    if len(raw) == 0 or len(raw) % EVENT:
        raise ValueError(
            f"{path} must hold whole events of {EVENT} bytes; got {len(raw)} bytes; {source.advice}"
        )
    x, y, *clock = np.frombuffer(raw, np.uint8).reshape(-1, EVENT).T
    overflow = y == OVERFLOW_ROW
    time = np.cumsum(overflow, dtype=np.int64)
    time *= OVERFLOW_TIME
    for byte, mask, shift in zip(clock, (0x7F, 0xFF, 0xFF), (16, 8, 0), strict=True):
        time += (byte & mask).astype(np.int32) << shift
    real = ~overflow
    events = Events(x=x[real], y=y[real], polarity=clock[0][real] >> 7, time=time[real])
    if len(events.x) == 0:
        raise ValueError(f"{path} must hold at least one event; got only clock overflows; {source.advice}")
    events.check_pixels(source, path)
    return events


def binned_recording(source: Source, config: DataConfig, path: Path) -> Frames:
    """The one sample of a file, binned over the time from the first to the last event, both included."""
    events = read_recording(path, source)
    begin, end = int(events.time.min()), int(events.time.max()) + 1
    yield bin_events(events, config.timesteps, SIDE, SIDE, begin, end, config.downsample or source.downsample)


def _recordings(folder: Path, source: Source) -> tuple[list[Path], list[int]]:
    """Files and their classes, by class and then name."""
    files, labels = [], []
    for part in sorted(path for path in folder.iterdir() if path.is_dir() and not is_stray(path)):
        if not (part.name.isdecimal() and int(part.name) < source.classes):
            raise ValueError(
                f"{folder} must hold one folder per digit, 0 to 9; got {part.name!r}; {source.advice}"
            )
        found = sorted(path for path in part.glob("*.bin") if not is_stray(path))
        files += found
        labels += [int(part.name)] * len(found)
    if not files:
        raise FileNotFoundError(f"no recording in {folder}/<digit>/*.bin; {source.advice}")
    return files, labels


def _read_part(source: Source, config: DataConfig, folder: Path, part: str) -> TensorSplit:
    if not (folder / part).is_dir():
        raise FileNotFoundError(f"{folder / part} is missing; {source.advice}")
    files, labels = _recordings(folder / part, source)

    def build() -> Frames:
        for path in files:
            yield from binned_recording(source, config, path)

    return event_split(source, config, folder, files, labels, build)


def read_nmnist(source: Source, config: DataConfig) -> tuple[TensorSplit, TensorSplit]:
    """Recordings from ROOT/NMNIST, ROOT/N-MNIST or ROOT."""
    folder = source.find(config, ["NMNIST", "N-MNIST", "."], "Train")
    return _read_part(source, config, folder, "Train"), _read_part(source, config, folder, "Test")


PUBLISHED = "https://data.mendeley.com/public-files/datasets/468j46mzdv/files"

NMNIST = Source(
    name="nmnist",
    what="handwritten digits seen by an event camera that moves, 34x34, two polarities",
    homepage="https://www.garrickorchard.com/datasets/n-mnist",
    layout="{Train,Test}/<digit>/*.bin in ROOT/NMNIST, ROOT/N-MNIST or ROOT",
    shape=(2, SIDE, SIDE),
    classes=10,
    published=(60000, 10000),
    events=True,
    augmentation=Augmentation(pad=2, flip=False),
    reader=read_nmnist,
    files=(
        Remote(
            path="NMNIST/Train.zip",
            md5="20959b8e626244a1b502305a9e6e2031",
            urls=(f"{PUBLISHED}/39c25547-014b-4137-a934-9d29fa53c7a0/file_downloaded",),
            folder="NMNIST/Train",
        ),
        Remote(
            path="NMNIST/Test.zip",
            md5="69ca8762b2fe404d9b9bad1103e97832",
            urls=(f"{PUBLISHED}/05a4d654-7e03-4c15-bdfa-9bb2bcbea494/file_downloaded",),
            folder="NMNIST/Test",
        ),
    ),
    recordings={".bin": binned_recording},
)
