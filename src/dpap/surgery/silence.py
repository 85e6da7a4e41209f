"""Silence that holds: the dead are exactly zero after every optimizer step, and stay so."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from dpap.anatomy import Wiring, neuron_kind
from dpap.anatomy.projections import between
from dpap.anatomy.wiring import unit_tensors
from dpap.surgery.living import Living
from dpap.surgery.optimizer import moments


def dead_tensors(wiring: Wiring, living: Living) -> list[tuple[Tensor, Bool[Tensor, "..."]]]:
    """Every parameter and buffer with dead entries, and which entries those are.

    Weights are dead where unit, synapse or feature is; biases and normalisation (weight, bias, running mean
    and variance) where the unit is.
    """
    found: list[tuple[Tensor, Tensor]] = []
    useful = living.useful(wiring)
    for name, projection in wiring.projections.items():
        weight = projection.module._parameters.get("weight")
        if weight is None:
            continue
        units = useful[name]
        dead = ~between(projection.module, units, living.features(projection)).to(weight.device)
        if name in living.synapses:
            dead = dead | ~living.synapses[name].to(weight.device)
        if dead.any():
            found.append((weight, dead))
        bias = projection.module._parameters.get("bias")
        if bias is not None and not units.all():
            found.append((bias, ~units.to(bias.device)))
    for attachment in wiring.attachments.values():
        if neuron_kind(attachment.module) is not None:
            # silent for want of input; a threshold of zero would let it fire
            continue
        dead = ~living.features(attachment)
        if dead.any():
            for tensor_name, axis in unit_tensors(attachment.module, attachment.features).items():
                tensor = getattr(attachment.module, tensor_name)
                along = [1] * tensor.ndim
                along[axis] = -1
                found.append((tensor, dead.to(tensor.device).view(along).expand(tensor.shape).contiguous()))
    return found


class Silence:
    """Keeps the dead at zero: weights, biases, normalisation, their gradients and their optimizer's moments.

    With an optimizer, gradients of the dead are cleared before each of its steps and their values after it;
    without one, values are cleared before every forward of the network.

    Args:
        model: the network.
        wiring: its wiring.
        optimizers: every optimizer that moves its parameters.
    """

    def __init__(self, model: nn.Module, wiring: Wiring, optimizers: Sequence[Optimizer]) -> None:
        self.wiring = wiring
        self.optimizers = tuple(optimizers)
        self._dead: list[tuple[Tensor, Tensor]] = []
        self._handles: list[Any] = []
        for optimizer in self.optimizers:
            self._handles.append(optimizer.register_step_pre_hook(self._before_step))
            self._handles.append(optimizer.register_step_post_hook(self._after_step))
        if not self.optimizers:
            self._handles.append(model.register_forward_pre_hook(self._before_forward))

    def impose(self, living: Living) -> None:
        """From now on exactly what `living` says is silent; clears values, gradients and moments at once."""
        self._dead = dead_tensors(self.wiring, living)
        self._clear_gradients()
        self._clear_values()
        for tensor, dead in self._dead:
            for optimizer in self.optimizers:
                if isinstance(tensor, Parameter):
                    for _, moment in moments(optimizer, tensor):
                        moment.masked_fill_(dead, 0)

    def remove(self) -> None:
        """Take the hooks out; the dead stay zero only as long as nobody moves them."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @torch.no_grad()
    def _clear_values(self) -> None:
        for tensor, dead in self._dead:
            # while a removal is being checked the dead are gone already, and what remains is zero
            if tensor.shape == dead.shape:
                tensor.masked_fill_(dead, 0)

    def _clear_gradients(self) -> None:
        for tensor, dead in self._dead:
            if tensor.grad is not None:
                tensor.grad.masked_fill_(dead, 0)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._clear_gradients()

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._clear_values()

    def _before_forward(self, model: nn.Module, args: Any) -> None:
        self._clear_values()
