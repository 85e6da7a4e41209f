"""The facts of a published data set, and where on disk it is searched for."""

import gzip
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dpap.data.config import DataConfig
from dpap.data.split import TensorSplit
from dpap.data.transform import Augmentation, EventConverter, ImageConverter


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

    @property
    def advice(self) -> str:
        """What to do when a file is missing or damaged."""
        return f"{self.name} is expected as {self.layout}, and can be downloaded from {self.homepage}"

    def image_converter(self, config: DataConfig, full: int = 255) -> ImageConverter:
        """The conversion of images that a configuration asks for; `full` is the byte that means 1."""
        return ImageConverter(
            full=full,
            augmentation=self.augmentation if config.augment else None,
            statistics=self.statistics if config.normalise else None,
        )

    def event_converter(self, config: DataConfig) -> EventConverter:
        """The conversion of event counts that a configuration asks for."""
        return EventConverter(
            binary=config.frames == "binary", augmentation=self.augmentation if config.augment else None
        )

    def find(self, config: DataConfig, folders: Sequence[str], marker: str) -> Path:
        """The first of ROOT/folder that holds something matching the pattern `marker`.

        Raises:
            FileNotFoundError: no root is given, it does not exist, or no folder holds the data.
        """
        given = config.root or os.environ.get("DPAP_DATA")
        if not given:
            raise FileNotFoundError(
                f"{self.name} needs a folder: set data.root or the environment variable DPAP_DATA; "
                f"{self.advice}"
            )
        root = Path(given).expanduser()
        if not root.is_dir():
            raise FileNotFoundError(f"the data root {root} is not a folder; {self.advice}")
        for folder in folders:
            if any((root / folder).glob(marker)):
                return root / folder
        places = ", ".join(str(root / folder) for folder in folders)
        raise FileNotFoundError(f"no {marker} in {places}; {self.advice}")

    def read_bytes(self, path: Path) -> bytes:
        """The contents of a file, unpacked when it ends in .gz.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the gzip stream is damaged or cut short.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; {self.advice}")
        if path.suffix != ".gz":
            return path.read_bytes()
        try:
            return gzip.decompress(path.read_bytes())
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is not a whole gzip file ({error}); {self.advice}") from error
