"""Where timesteps are silenced: a neuron never fires at its dead timesteps, in training and in evaluation."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dpap.anatomy.hidden_state import accept
from dpap.surgery.compiled import recompile

BUFFER = "timestep_alive"
AXES = "timestep_axes"
KEY = -1
"""Under this number, which torch gives to no hook, modules keep the hook that masks."""


def _mask_output(
    module: nn.Module, args: Any, output: Tensor, *, time_axis: int, feature_axis: int
) -> Tensor:
    # a function of the module alone, so that copies of the network carry their own mask along
    alive: Tensor = module.get_buffer(BUFFER)
    if output.shape[time_axis] != alive.shape[0]:
        raise ValueError(
            f"timesteps of this network were pruned for T = {alive.shape[0]}; got T = {output.shape[time_axis]}: "
            "run it with as many timesteps as it was trained with"
        )
    shape = [1] * output.ndim
    shape[time_axis], shape[feature_axis] = alive.shape
    return output * alive.view(shape).to(output.dtype)


def silence_timesteps(
    module: nn.Module, alive: Bool[Tensor, "_ _"], time_axis: int, feature_axis: int
) -> RemovableHandle | None:
    """Let neurons fire only at their alive timesteps; the reset of the membrane is left as it is.

    The mask is a buffer of the module, saved and moved with it.

    Args:
        module: spiking neurons that are called once per forward with all timesteps.
        alive: which neuron-timesteps are alive.
        time_axis: axis of the output that counts timesteps.
        feature_axis: axis of the output that counts units, from the end.

    Returns:
        The handle of the hook, or None where the module had it before.
    """
    if BUFFER in module._buffers:
        module._buffers[BUFFER] = alive.clone()
        return None
    module.register_buffer(BUFFER, alive.clone())
    module.register_buffer(AXES, torch.tensor([time_axis, feature_axis]))
    recompile()
    mask = partial(_mask_output, time_axis=time_axis, feature_axis=feature_axis)
    handle = module.register_forward_hook(mask)
    # torch numbers hooks anew in each process: in another one the next hook would take this one's place
    module._forward_hooks[KEY] = module._forward_hooks.pop(handle.id)
    handle.id = KEY
    return handle


def keep_timesteps(module: nn.Module, features: Tensor) -> Callable[[], None]:
    """Slice the mask of a module, if it has one, to the features that remain; returns a function that undoes it."""
    mask = module._buffers.get(BUFFER)
    if mask is None:
        return lambda: None
    alive = mask.data
    mask.data = alive[:, features.to(alive.device)]
    accept(mask)

    def undo() -> None:
        mask.data = alive
        accept(mask)

    return undo
