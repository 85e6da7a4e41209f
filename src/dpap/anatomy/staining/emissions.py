"""What each weight layer emits on the examples, so that staining takes the paths that the network itself takes:
routers choose the same experts, early exits the same depth.
"""

from dataclasses import dataclass, field
from typing import Literal
from zlib import crc32

import torch
from jaxtyping import Bool
from torch import Tensor

LARGEST = 2**20
"""Values of one output that are kept one by one; of larger ones the mean of each unit is kept."""
MOST = 2**25
"""Values that are kept in all."""


@dataclass
class Emissions:
    """Outputs of weight layers on the examples, call by call."""

    _kept: dict[tuple[str, int, int], Tensor] = field(default_factory=dict)
    _values: int = 0

    def keep(self, name: str, example: int, call: int, output: Tensor, axis: int) -> None:
        """Keep what a layer emits in one call.

        Args:
            name: of the layer.
            example: number of the example.
            call: number of the call within one forward.
            output: what it emits.
            axis: that counts units, from the end.
        """
        kept = torch.nan_to_num(output.detach(), posinf=0.0, neginf=0.0)
        if kept.numel() > LARGEST or self._values + kept.numel() > MOST:
            others = [other for other in range(-kept.ndim, 0) if other != axis]
            kept = kept.mean(others, keepdim=True) if others else kept
        self._values += kept.numel()
        self._kept[name, example, call] = kept.clone()

    def output(self, name: str, example: int, call: int, shape: torch.Size) -> Tensor | None:
        """A new tensor with what a layer emits, or None where it emits another shape there, or was not called."""
        kept = self._kept.get((name, example, call))
        if kept is None or kept.ndim != len(shape):
            return None
        fits = all(have in (1, wanted) for have, wanted in zip(kept.shape, shape, strict=True))
        return kept.expand(shape).clone() if fits else None

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._values = 0


@dataclass(frozen=True)
class Perturbation:
    """What is added to the output of weight layers; the same for each unit whichever others are perturbed.

    Attributes:
        units: weight layer -> which of its units are perturbed.
        sign: "up", "down", or "both" for a random sign each.
        size: in largest outputs of the layer; of many sizes if None.
        seed: of what is random.
    """

    units: dict[str, Bool[Tensor, "_"]] = field(default_factory=dict)
    sign: Literal["up", "down", "both"] = "both"
    size: float | None = None
    seed: int = 0

    def added_to(self, output: Tensor, name: str, axis: int) -> Tensor:
        """The output of a layer, perturbed in place.

        Args:
            output: of the layer.
            name: of the layer.
            axis: that counts units, from the end.
        """
        units = self.units.get(name)
        if units is None or not output.numel():
            return output
        # of each sample and unit, and alike at all positions
        shape = [size if place in (0, output.ndim + axis) else 1 for place, size in enumerate(output.shape)]
        generator = torch.Generator().manual_seed(crc32(name.encode()) + self.seed)
        change = 0.5 + torch.rand(shape, generator=generator)
        if self.sign == "down":
            change = -change
        elif self.sign == "both":
            change *= torch.randint(2, shape, generator=generator) * 2 - 1
        largest = float(output.abs().max())
        if self.size is None:
            change *= max(largest, 1.0) * 10 ** (4 * torch.rand(shape, generator=generator) - 2)
        else:
            # a threshold may lie far above what the example causes
            change *= self.size * (max(largest, 1.0) if self.size > 1 else largest or 1.0)
        along = [1] * output.ndim
        along[axis] = -1
        return output.add_((change * units.view(along)).to(output.device, output.dtype))
