"""A compact network at its dense widths again: units that were removed are zeros, as before they left."""

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dpap.anatomy.frozen import frozen
from dpap.surgery.equivalence import CompactionError, largest_difference
from dpap.surgery.timesteps import AXES, BUFFER, silence_timesteps

TOLERANCE = 1e-6
"""Largest difference of outputs in double precision, relative to the largest."""


@torch.no_grad()
def padded(compact: nn.Module, dense: nn.Module, example: Tensor) -> nn.Module:
    """Give a dense network the weights of a compact one, and zeros where that has none, in place.

    A file does not say which units have left, so those that stayed come first: the network costs what the silenced one
    cost, and computes what the compact one does.

    Args:
        compact: the network.
        dense: the same, as its constructor builds it.
        example: a small batch of what both take.

    Returns:
        `dense`, in evaluation mode.

    Raises:
        CompactionError: where it computes something else, as when a layer reads several others side by side.
    """
    dense.eval()
    widths = _widths(dense, example)
    weights = compact.state_dict()
    for name, tensor in dense.state_dict().items():
        tensor.copy_(_in_the_corner(weights[name], tensor.shape))
    for name, module in compact.named_modules():
        alive = module._buffers.get(BUFFER)
        if alive is not None:
            time_axis, feature_axis = module.get_buffer(AXES).tolist()
            size = (len(alive), widths[name].shape[feature_axis])
            mask = _in_the_corner(alive, torch.Size(size))
            silence_timesteps(dense.get_submodule(name), mask, time_axis, feature_axis)
    outputs = [_doubled(model)(example.double()) for model in (compact, dense)]
    difference = largest_difference([outputs[0]], [outputs[1]])
    if difference > TOLERANCE:
        raise CompactionError(
            f"with zeros for what was removed the network computes something else: largest difference {difference:.1e}"
        )
    return dense


def _widths(model: nn.Module, example: Tensor) -> dict[str, Tensor]:
    """What each module returns."""
    found: dict[str, Tensor] = {}

    def record(name: str, module: nn.Module, args: Any, output: Any) -> None:
        found[name] = output

    handles = [each.register_forward_hook(partial(record, name)) for name, each in model.named_modules()]
    try:
        with frozen(model):
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _in_the_corner(small: Tensor, shape: torch.Size) -> Tensor:
    """Zeros of that shape, with a tensor at the beginning of every axis."""
    large = small.new_zeros(shape)
    large[tuple(slice(size) for size in small.shape)] = small
    return large


def _doubled(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).double().eval()
