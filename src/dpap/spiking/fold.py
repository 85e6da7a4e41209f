"""Stateless layers over time: timesteps are folded into the batch, and what is constant is computed once."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable

from dpap.spiking.layout import is_constant


class FoldTime(nn.Sequential):
    """Its modules in turn on [T * B, ...] of an input [T, B, ...]; the output is [T, B, ...] again."""

    def forward(self, input: Float[Tensor, "time batch *feature"]) -> Float[Tensor, "time batch *result"]:
        """Fold, apply, unfold."""
        if input.ndim < 3:
            raise ValueError(f"expected [time, batch, feature, ...]; got shape {tuple(input.shape)}")
        folded: Tensor = super().forward(input.flatten(0, 1))
        return folded.unflatten(0, input.shape[:2])


def over_time(constant: Float[Tensor, "batch *feature"], steps: int) -> Float[Tensor, "time batch *feature"]:
    """`constant.expand(steps, ...)`: one and the same at all timesteps, not copied.

    On the way back it adds up what neurons say of its timesteps, and knows when they all say the same.
    """
    sequence: Tensor = _OverTime.apply(constant, steps)
    return sequence


class _OverTime(Function):
    @staticmethod
    def forward(ctx: Any, constant: Tensor, steps: int) -> Tensor:
        return constant.expand(steps, *constant.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        # torch's own sum of such a tensor reads it anew for every timestep
        return upstream[0] * len(upstream) if is_constant(upstream) else upstream.sum(0), None
