"""Stateless layers over time: timesteps are folded into the batch, and what is constant is computed once."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable

from dpap.spiking.layout import is_constant
from dpap.spiking.recorded import recording


class FoldTime(nn.Sequential):
    """Applies its modules in turn to an input [T, B, ...] as [T * B, ...]; the output is [T, B, ...] again.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from dpap.spiking import FoldTime
        >>> FoldTime(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))(torch.rand(8, 2, 1, 5, 5)).shape
        torch.Size([8, 2, 4, 3, 3])
    """

    def forward(self, input: Float[Tensor, "time batch *feature"]) -> Float[Tensor, "time batch *result"]:
        """Fold, apply, unfold."""
        if input.ndim < 3:
            raise ValueError(f"expected [time, batch, feature, ...]; got shape {tuple(input.shape)}")
        folded: Tensor = super().forward(input.flatten(0, 1))
        return folded.unflatten(0, input.shape[:2])


def over_time(constant: Float[Tensor, "batch *feature"], steps: int) -> Float[Tensor, "time batch *feature"]:
    """`constant.expand(steps, ...)`: the same at all timesteps, not copied.

    Backwards the gradients of the timesteps are added up, or multiplied where they are all the same in memory.

    Example:
        >>> import torch
        >>> from dpap.spiking import LIF, over_time
        >>> image = torch.rand(2, 3)
        >>> LIF()(over_time(image, 8)).shape
        torch.Size([8, 2, 3])
    """
    if recording():
        return constant.expand(steps, *constant.shape)
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
