"""From stored bytes to a batch of floats, without a loop over its samples."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float32, UInt8
from torch import Generator, Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Augmentation:
    """Random shifts by up to `pad` pixels, filled up with zeros, and mirroring of half of the samples."""

    pad: int
    flip: bool

    def __call__(
        self, batch: UInt8[Tensor, "batch *feature height width"], generator: Generator
    ) -> UInt8[Tensor, "batch *feature height width"]:
        """Shift and mirror each sample as one: all its channels and timesteps alike."""
        samples, height, width = len(batch), batch.shape[-2], batch.shape[-1]
        planes = functional.pad(batch.reshape(samples, -1, height, width), [self.pad] * 4)
        # drawn where the generator is, so that every device augments alike
        down, right = torch.randint(2 * self.pad + 1, (2, samples, 1), generator=generator)
        row = down + torch.arange(height)
        column = torch.arange(width).expand(samples, width)
        if self.flip:
            mirrored = torch.rand(samples, 1, generator=generator) < 0.5
            column = torch.where(mirrored, width - 1 - column, column)
        column = right + column
        row, column = row.to(batch.device, non_blocking=True), column.to(batch.device, non_blocking=True)
        pixel = (row[:, None, :, None] * planes.shape[-1] + column[:, None, None, :]).flatten(2)
        shifted = planes.flatten(2).gather(2, pixel.expand(-1, planes.shape[1], -1))
        return shifted.reshape(batch.shape)


Augment = Callable[[Tensor, Generator], Tensor]
"""Another batch of bytes for a batch, by numbers of the generator alone."""


@dataclass(frozen=True)
class InTurn:
    """One augmentation after the other."""

    steps: tuple[Augment, ...]

    def __call__(
        self, batch: UInt8[Tensor, "batch *feature"], generator: Generator
    ) -> UInt8[Tensor, "batch *feature"]:
        for step in self.steps:
            batch = step(batch, generator)
        return batch


@cache
def _by_channel(numbers: tuple[float, ...], device: torch.device) -> Tensor:
    """One number a channel, [C, 1, 1]; put on a device once, not with every batch."""
    return torch.tensor(numbers, dtype=torch.float32, device=device)[:, None, None]


@dataclass(frozen=True)
class ImageConverter:
    """Bytes to values in [0, 1], then per channel (value - mean) / deviation where given."""

    full: int = 255
    augmentation: Augment | None = None
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def __call__(
        self, batch: UInt8[Tensor, "batch channel height width"], generator: Generator | None
    ) -> Float32[Tensor, "batch channel height width"]:
        """Convert a batch; it is augmented only where a generator is given."""
        if self.augmentation is not None and generator is not None:
            batch = self.augmentation(batch, generator)
        return self.normalise_(batch.float().div_(self.full))

    def normalise_(
        self, values: Float32[Tensor, "batch channel height width"]
    ) -> Float32[Tensor, "batch channel height width"]:
        """Subtract the mean and divide by the deviation of each channel where given, in place."""
        if self.statistics is not None:
            mean, deviation = (_by_channel(part, values.device) for part in self.statistics)
            values.sub_(mean).div_(deviation)
        return values


@dataclass(frozen=True)
class EventConverter:
    """Event counts to floats, time first; binary frames hold only whether there was an event."""

    binary: bool = False
    augmentation: Augmentation | None = None

    def __call__(
        self, batch: UInt8[Tensor, "batch time polarity height width"], generator: Generator | None
    ) -> Float32[Tensor, "time batch polarity height width"]:
        """Convert a batch; it is augmented only where a generator is given."""
        if self.augmentation is not None and generator is not None:
            batch = self.augmentation(batch, generator)
        if self.binary:
            batch = batch.clamp(max=1)
        return batch.transpose(0, 1).contiguous().float()
