"""Samples that are iterated in batches, in an order that depends on a seed alone."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Int64, UInt8
from torch import Generator, Tensor

from dpap.data.transform import EventConverter, ImageConverter

SomeSplit = TypeVar("SomeSplit", bound="Split")


class Split(ABC):
    """A training, validation or test set."""

    @property
    @abstractmethod
    def labels(self) -> Int64[Tensor, "sample"]:
        """The class of each sample, in the order of the files."""

    @abstractmethod
    def subset(self: SomeSplit, index: Int64[Tensor, "chosen"]) -> SomeSplit:
        """The samples at these positions of this split; nothing is copied."""

    @abstractmethod
    def join(self: SomeSplit, other: SomeSplit) -> SomeSplit:
        """This split's samples, then those of `other`."""

    @abstractmethod
    def plain(self: SomeSplit) -> SomeSplit:
        """The same samples, never augmented."""

    def held(self) -> list[Tensor]:
        """The tensors in memory from which batches are made; none where they are read from elsewhere."""
        return []

    def to(self: SomeSplit, device: torch.device, moved: dict[int, Tensor]) -> SomeSplit:
        """The same samples, made into batches on a device; of samples that do not lie in memory, itself.

        Args:
            device: where the batches are wanted.
            moved: the tensors that are there already, by the `id` of what they are copies of; filled up.
        """
        return self

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _iterate(
        self, batch_size: int, shuffle_seed: int | None, drop_last: bool, part: tuple[int, int]
    ) -> Iterator[tuple[Tensor, Tensor]]: ...

    def batches(
        self,
        batch_size: int,
        shuffle_seed: int | None = None,
        drop_last: bool = False,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate once over all samples.

        Args:
            batch_size: samples a batch; the last may be smaller.
            shuffle_seed: decides the order and every random number of the augmentation, and nothing else
                does: the same seed gives the same batches. None is the order of the files, not augmented.
            drop_last: leave out a last batch that is smaller.
            part: (k, of n) alone of every batch: the k-th of n processes that share it. All together yield the batches
                that one yields; of a batch of fewer samples than processes some yield nothing.

        Yields:
            x float32 [B, C, H, W], of events [T, B, C, H, W], and y int64 [B].
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}")
        return self._iterate(batch_size, shuffle_seed, drop_last, part)

    def number_of_batches(self, batch_size: int, drop_last: bool = False) -> int:
        """How many batches `batches` yields."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}")
        return len(self) // batch_size if drop_last else -(-len(self) // batch_size)


def batched_order(
    samples: int, batch_size: int, generator: Generator | None, drop_last: bool
) -> list[Int64[Tensor, "batch"]]:
    """Positions of each batch, shuffled where a generator is given."""
    if samples == 0:
        return []
    order = torch.arange(samples) if generator is None else torch.randperm(samples, generator=generator)
    parts = list(order.split(batch_size))
    return parts[:-1] if drop_last and len(parts[-1]) < batch_size else parts


def part_of(batch: Tensor, part: tuple[int, int], axis: int = 0) -> Tensor:
    """The k-th of n parts of a batch, as equal as can be."""
    number, parts = part
    return batch.tensor_split(parts, axis)[number]


@dataclass(frozen=True)
class TensorSplit(Split):
    """Samples that lie in memory (or in a mapped file) as bytes; a batch at a time becomes floats.

    Attributes:
        data: uint8 [N, C, H, W] images or [N, T, C, H, W] event counts, of this split and perhaps others.
        classes: the class of each sample of `data`.
        index: the samples of `data` that belong to this split.
        convert: makes a batch of floats.
    """

    data: UInt8[Tensor, "all *feature"]
    classes: Int64[Tensor, "all"]
    index: Int64[Tensor, "sample"]
    convert: ImageConverter | EventConverter

    @classmethod
    def of(
        cls,
        data: UInt8[Tensor, "all *feature"],
        classes: Int64[Tensor, "all"],
        convert: ImageConverter | EventConverter,
    ) -> "TensorSplit":
        """A split of all samples."""
        return cls(data, classes, torch.arange(len(data)), convert)

    @property
    def labels(self) -> Int64[Tensor, "sample"]:
        return self.classes[self.index]

    def subset(self, index: Int64[Tensor, "chosen"]) -> "TensorSplit":
        return replace(self, index=self.index[index])

    def join(self, other: "TensorSplit") -> "TensorSplit":
        data = torch.cat([self.data, other.data])
        index = torch.cat([self.index, other.index + len(self.data)])
        return replace(self, data=data, classes=torch.cat([self.classes, other.classes]), index=index)

    def plain(self) -> "TensorSplit":
        return replace(self, convert=replace(self.convert, augmentation=None))

    def held(self) -> list[Tensor]:
        return [self.data, self.classes]

    def to(self, device: torch.device, moved: dict[int, Tensor]) -> "TensorSplit":
        for one in self.held():
            if id(one) not in moved:
                moved[id(one)] = one.to(device)
        return replace(self, data=moved[id(self.data)], classes=moved[id(self.classes)])

    def __len__(self) -> int:
        return len(self.index)

    def _iterate(
        self, batch_size: int, shuffle_seed: int | None, drop_last: bool, part: tuple[int, int]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        generator = None if shuffle_seed is None else torch.Generator().manual_seed(shuffle_seed)
        for positions in batched_order(len(self), batch_size, generator, drop_last):
            chosen = self.index[positions].to(self.data.device, non_blocking=True)
            # whole, for the augmentation draws for all samples at once
            x, own = self.convert(self.data[chosen], generator), part_of(chosen, part)
            if len(own):
                yield part_of(x, part, axis=1 if x.dim() == 5 else 0), self.classes[own]
