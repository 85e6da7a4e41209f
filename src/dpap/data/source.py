"""The facts of a published data set, and where on disk it is searched for."""

import gzip
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from dpap.data.config import DataConfig
from dpap.data.download import Remote
from dpap.data.randaugment import RandAugment, RandomErasing
from dpap.data.split import TensorSplit
from dpap.data.transform import Augment, Augmentation, EventConverter, ImageConverter, InTurn

UNPACKED = 8
"""So many times its own size a gzip file may hold; the published ones hold up to five times theirs."""
UNPACKED_ALWAYS = 1 << 20
"""So many bytes any gzip file may hold."""
TEXT = 1 << 16
"""So many bytes a file of text may have; the published ones have a few thousand."""
STRAY = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "@eadir", "lost+found"}
"""Names, in small letters, under which systems and programs leave files of their own in any folder."""


def is_stray(path: Path) -> bool:
    """Whether a file or folder was left by a system or an editor: all hidden ones, and those of `STRAY`."""
    return path.name.startswith(".") or path.name.lower() in STRAY


@dataclass(frozen=True)
class Source:
    """A published data set.

    Attributes:
        name: in a configuration.
        what: one line for people.
        homepage: where it can be downloaded.
        layout: the files that are expected below the root.
        shape: (C, H, W) of a sample as published.
        classes: number of classes.
        published: number of training and test samples of the complete set.
        events: whether samples are recordings of events.
        augmentation: what `augment` does: the shifts and mirroring that keep the class.
        reader: reads training and test samples.
        statistics: mean and deviation of each channel over the published training set, values in [0, 1].
        files: those that `dpap data NAME --download` puts below the root; none where they cannot be had by themselves.
        full: the byte of an image that means 1.
        downsample: factor by which the sensor's sides shrink where a configuration names none.
        class_names: of the classes in their order; none where they are called by their numbers.
        recordings: of events: the samples, uint8 [T, 2, H, W], in one file, by the ending of its name.
    """

    name: str
    what: str
    homepage: str
    layout: str
    shape: tuple[int, int, int]
    classes: int
    published: tuple[int, int]
    events: bool
    augmentation: Augmentation
    reader: Callable[["Source", DataConfig], tuple[TensorSplit, TensorSplit]]
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    files: tuple[Remote, ...] = ()
    full: int = 255
    downsample: int = 1
    class_names: tuple[str, ...] = ()
    recordings: Mapping[str, Callable[["Source", DataConfig, Path], Iterator[np.ndarray]]] = field(
        default_factory=dict
    )

    @property
    def advice(self) -> str:
        """What to do when a file is missing or damaged."""
        command = f" (dpap data {self.name} --download --root FOLDER)" if self.files else ""
        return (
            f"{self.name} is expected as {self.layout}, and can be downloaded from {self.homepage}{command}"
        )

    def sample_shape(self, config: DataConfig) -> tuple[int, int, int]:
        """(C, H, W) of a sample under a configuration."""
        channels, height, width = self.shape
        factor = (config.downsample or self.downsample) if self.events else 1
        return channels, height // factor, width // factor

    def image_converter(self, config: DataConfig) -> ImageConverter:
        """The conversion of images that a configuration asks for.

        Raises:
            ValueError: operations on bytes are asked for, and a byte of 255 does not mean 1.
        """
        steps: list[Augment] = [self.augmentation] if config.augment else []
        if config.randaugment or config.erase:
            if self.full != 255:
                raise ValueError(
                    f"randaugment and erase are for images whose brightest byte is 255; that of {self.name} is "
                    f"{self.full}; set both to 0"
                )
            steps += [RandAugment(config.randaugment)] if config.randaugment else []
            steps += [RandomErasing(config.erase)] if config.erase else []
        return ImageConverter(
            full=self.full,
            augmentation=(steps[0] if len(steps) == 1 else InTurn(tuple(steps))) if steps else None,
            statistics=self.statistics if config.normalise else None,
        )

    def event_converter(self, config: DataConfig) -> EventConverter:
        """The conversion of event counts that a configuration asks for.

        Raises:
            ValueError: operations on images are asked for.
        """
        if config.randaugment or config.erase:
            raise ValueError(
                f"randaugment and erase are for images; {self.name} has recordings of events; set both to 0"
            )
        return EventConverter(
            binary=config.frames == "binary", augmentation=self.augmentation if config.augment else None
        )

    def root(self, config: DataConfig) -> Path:
        """The folder of the data sets.

        Raises:
            FileNotFoundError: none is given.
        """
        given = config.root or os.environ.get("DPAP_DATA")
        if not given:
            raise FileNotFoundError(
                f"{self.name} needs a folder: set data.root or the environment variable DPAP_DATA; "
                f"{self.advice}"
            )
        return Path(given).expanduser()

    def find(self, config: DataConfig, folders: Sequence[str], marker: str) -> Path:
        """The first of ROOT/folder that holds something matching the pattern `marker`.

        Raises:
            FileNotFoundError: no root is given, it does not exist, or no folder holds the data.
        """
        root = self.root(config)
        if not root.is_dir():
            raise FileNotFoundError(f"the data root {root} is not a folder; {self.advice}")
        for folder in folders:
            if not all(map(is_stray, (root / folder).glob(marker))):
                return root / folder
        places = ", ".join(str(root / folder) for folder in folders)
        raise FileNotFoundError(f"no {marker} in {places}; {self.advice}")

    @contextmanager
    def open(self, path: Path) -> Iterator[BufferedIOBase]:
        """A file as a stream, unpacked when its name ends in .gz.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: at any read, where the gzip stream is damaged or cut short.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; {self.advice}")
        if path.suffix != ".gz":
            with path.open("rb") as file:
                yield file
            return
        try:
            with gzip.open(path) as unpacked:
                yield unpacked
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is not a whole gzip file ({error}); {self.advice}") from error

    def check_size(self, path: Path, size: int) -> None:
        """Raise a ValueError where a file cannot hold `size` bytes, or is a gzip file that unpacks to suspiciously
        many: memory for them is to be taken only after this.
        """
        stored = path.stat().st_size
        if path.suffix != ".gz":
            if size > stored:
                raise ValueError(f"{path} must hold {size} bytes by its header; got {stored}; {self.advice}")
        elif size > max(UNPACKED * stored, UNPACKED_ALWAYS):
            raise ValueError(
                f"{path} has {stored} bytes and must unpack to {size} by its header, more than {UNPACKED} times as "
                f"many: it is damaged, or made to fill the memory; if you trust it, unpack it (gunzip); {self.advice}"
            )

    def read_text(self, path: Path) -> str:
        """The contents of a small file of text; what is not UTF-8 is replaced.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is larger than such files are.
        """
        with self.open(path) as file:
            content = file.read(TEXT + 1)
        if len(content) > TEXT:
            raise ValueError(f"{path} must be a text of at most {TEXT} bytes; it is longer; {self.advice}")
        return content.decode("utf-8-sig", errors="replace")
