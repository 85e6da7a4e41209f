"""Single files as samples of a data set: pictures, arrays and recordings of events, as users have them."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from dpap.data.config import DataConfig
from dpap.data.kind import SampleKind
from dpap.data.picture import PICTURES, read_picture
from dpap.data.registry import DATASETS
from dpap.data.source import Source, is_stray

ARRAY = ".npy"
FULL = 255
"""Of a byte."""


@dataclass(frozen=True)
class Sample:
    """What a network takes, and what was done to make it of a file.

    Attributes:
        file: its path, with a number where the file holds several samples.
        x: [C, H, W], of events [T, C, H, W].
        notes: conversions that are none of the data set's own.
    """

    file: str
    x: Float32[Tensor, "*shape"]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SingleFiles:
    """Reads files as the test samples of a data set are read.

    Attributes:
        kind: of the samples.
        config: of the data set.
        resize: bring pictures to the size that is expected.
    """

    kind: SampleKind
    config: DataConfig
    resize: bool = False

    @property
    def endings(self) -> tuple[str, ...]:
        """Of the names of files that can be read."""
        source = DATASETS.get(self.config.name)
        if source is None:
            return (ARRAY,)
        return (*(source.recordings if source.events else PICTURES), ARRAY)

    def listed(self, paths: Sequence[Path]) -> tuple[list[Path], int]:
        """Files, and in the place of a folder all files within it that can be read; and how many others it has."""
        files, others = [], 0
        for path in paths:
            if not path.is_dir():
                files.append(path)
                continue
            for folder, folders, names in os.walk(path):
                folders[:] = sorted(name for name in folders if not is_stray(Path(name)))
                within = [Path(folder, name) for name in sorted(names) if not is_stray(Path(name))]
                readable = [each for each in within if each.suffix.lower() in self.endings]
                files += readable
                others += len(within) - len(readable)
        return files, others

    def read(self, path: Path) -> Iterator[Sample]:
        """The samples in a file.

        Raises:
            OSError, ValueError: where there is no such file, it is damaged, or it holds something else.
        """
        ending, source = path.suffix.lower(), DATASETS.get(self.config.name)
        if ending not in self.endings:
            why = f", for {self.kind.name} makes its samples itself" if source is None else ""
            raise ValueError(f"expected a file that ends in {', '.join(self.endings)}{why}")
        if ending == ARRAY:
            yield from self._arrays(path, source)
        elif source is not None and ending in source.recordings:
            frames = list(source.recordings[ending](source, self.config, path))
            if not frames:
                raise ValueError("its labels name no trial")
            for number, counts in enumerate(frames):
                name = str(path) if len(frames) == 1 else f"{path}[{number}]"
                yield Sample(name, _from_counts(source, self.config, counts))
        elif source is not None:
            pixels, notes = read_picture(path, self.kind.input_shape, self.resize)
            yield Sample(str(path), _from_pixels(source, self.config, pixels), notes)

    def _arrays(self, path: Path, source: Source | None) -> Iterator[Sample]:
        """The samples in a file of numpy's, one or several along a first axis."""
        array, layouts = _mapped(path), self._layouts()
        for shape, arrange in layouts.items():
            if array.shape == shape:
                yield Sample(str(path), self._values(arrange(array), source))
                return
        for shape, arrange in layouts.items():
            if array.shape[1:] == shape:
                if not len(array):
                    raise ValueError(
                        f"it holds no sample: its first axis, of samples, is empty ({list(array.shape)})"
                    )
                for number, each in enumerate(array):
                    yield Sample(f"{path}[{number}]", self._values(arrange(each), source))
                return
        raise ValueError(
            f"expected an array of {' or '.join(str(list(shape)) for shape in layouts)}, or several along a first "
            f"axis; got {list(array.shape)}"
        )

    def _layouts(self) -> dict[tuple[int, ...], Callable[[np.ndarray], np.ndarray]]:
        """Shapes of an array that holds one sample, and how it comes to the network's."""
        shape = self.kind.input_shape
        if self.kind.timesteps is not None:
            return {(self.kind.timesteps, *shape): lambda array: array}
        channels, height, width = shape
        layouts: dict[tuple[int, ...], Callable[[np.ndarray], np.ndarray]] = {shape: lambda array: array}
        if channels == 1:
            layouts[height, width] = lambda array: array[None]
        layouts.setdefault((height, width, channels), lambda array: array.transpose(2, 0, 1))
        return layouts

    def _values(self, array: np.ndarray, source: Source | None) -> Float32[Tensor, "*shape"]:
        if source is None:
            return _floats(array)
        if source.events:
            return _from_counts(source, self.config, _bytes(array, "counts of events"))
        if np.issubdtype(array.dtype, np.floating):
            values = _floats(array)
            if values.numel() and (values.min() < 0 or values.max() > 1):
                raise ValueError(
                    "expected pixels as floats in [0, 1], or whole numbers from 0 to 255, not normalised yet; got "
                    f"{float(values.min()):.3g} to {float(values.max()):.3g}"
                )
            return source.image_converter(self.config).normalise_(values[None])[0]
        return _from_pixels(source, self.config, _bytes(array, "pixels"))


def _mapped(path: Path) -> Any:
    """An array of numbers in a file of numpy's, none of which is read yet."""
    with path.open("rb"):
        pass  # an error of the file system keeps its own words
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy and Python's parser fail in many ways on a damaged header
        raise ValueError(f"it is no whole .npy file of numbers ({type(error).__name__}: {error})") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"expected an array of numbers, got {array.dtype}")
    return array


def _floats(array: np.ndarray) -> Float32[Tensor, "*shape"]:
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"expected floats, as the data set gives them, got {array.dtype}")
    with np.errstate(over="ignore"):
        values = torch.from_numpy(np.array(array, np.float32, order="C"))
    if not values.isfinite().all():
        raise ValueError("expected finite numbers, got infinite or undefined ones")
    return values


def _bytes(array: np.ndarray, what: str) -> UInt8[np.ndarray, "*shape"]:
    """Whole numbers from 0 to 255, whatever their type."""
    values = np.array(array, order="C")
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.uint8)
    if values.dtype.kind == "b" or not (whole == values).all():
        raise ValueError(f"expected {what}, whole numbers from 0 to {FULL}; got others ({values.dtype})")
    return whole


def _from_pixels(
    source: Source, config: DataConfig, pixels: UInt8[np.ndarray, "channel height width"]
) -> Float32[Tensor, "channel height width"]:
    """As the data set's own pixels, which may have fewer levels."""
    levels = (pixels.astype(np.uint16) * source.full + FULL // 2) // FULL
    own = torch.from_numpy(levels.astype(np.uint8))
    return source.image_converter(config)(own[None], None)[0]


def _from_counts(
    source: Source, config: DataConfig, counts: UInt8[np.ndarray, "time polarity height width"]
) -> Float32[Tensor, "time polarity height width"]:
    return source.event_converter(config)(torch.from_numpy(counts)[None], None)[:, 0]
