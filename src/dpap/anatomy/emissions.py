"""What each weight layer emits on the examples, so that staining takes the paths that the network itself takes:
routers choose the same experts, early exits the same depth.
"""

from dataclasses import dataclass, field

import torch
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
