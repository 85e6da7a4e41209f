"""Average pooling that is quick on a CPU."""

from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dpap.spiking.recorded import recording


class AvgPool(nn.AvgPool2d):
    """Means of k x k squares, stride k; a remainder at the right and bottom is dropped.

    The same as its base class, whose CPU kernels for contiguous maps are not vectorised: adding k rows and then
    k columns takes a third of the time, and the backward pass half. Nothing is kept for the backward pass.
    """

    kernel_size: int
    without_dpap = nn.AvgPool2d
    """What computes the same, but for rounding, where there is no dpap."""

    def forward(
        self, input: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel h w"]:
        """The pooled maps."""
        if input.device.type != "cpu" or recording():
            return super().forward(input)
        pooled: Tensor = _AvgPool.apply(input, self.kernel_size)
        return pooled


class _AvgPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, k: int) -> Tensor:
        ctx.k, ctx.shape = k, maps.shape
        ctx.channels_last = maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()
        height, width = maps.shape[-2] // k, maps.shape[-1] // k
        cropped = maps[..., : height * k, : width * k]
        rows = reduce(torch.add, cropped.unflatten(-2, (height, k)).unbind(-2))
        return reduce(torch.add, rows.unflatten(-1, (width, k)).unbind(-1)) / k**2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        k, (*_, height, width) = ctx.k, ctx.shape
        h, w = upstream.shape[-2:]
        share = upstream / k**2
        whole = height == h * k and width == w * k
        if whole and ctx.channels_last:
            return F.interpolate(share.contiguous(memory_format=torch.channels_last), scale_factor=k), None
        d_maps = upstream.new_empty(ctx.shape) if whole else upstream.new_zeros(ctx.shape)
        squares = d_maps[..., : h * k, : w * k].unflatten(-2, (h, k))
        first = squares[..., 0, :]
        for column in first.unflatten(-1, (w, k)).unbind(-1):
            column.copy_(share)
        for row in squares.unbind(-2)[1:]:
            row.copy_(first)
        return d_maps, None
