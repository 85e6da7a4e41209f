"""Stateless layers over time: timesteps are folded into the batch."""

from jaxtyping import Float
from torch import Tensor, nn


class FoldTime(nn.Sequential):
    """Its modules in turn on [T * B, ...] of an input [T, B, ...]; the output is [T, B, ...] again."""

    def forward(self, input: Float[Tensor, "time batch *feature"]) -> Float[Tensor, "time batch *result"]:
        """Fold, apply, unfold."""
        if input.ndim < 3:
            raise ValueError(f"expected [time, batch, feature, ...]; got shape {tuple(input.shape)}")
        folded: Tensor = super().forward(input.flatten(0, 1))
        return folded.unflatten(0, input.shape[:2])
