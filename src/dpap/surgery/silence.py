"""Where masks are applied: the dead are exactly zero after every optimizer step, and stay so."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from dpap.anatomy import Wiring, neuron_kind
from dpap.anatomy.layers import as_weight, between, bias_of, by_row, matrices_of, weight_of
from dpap.anatomy.observing.hooks import Around, Hook
from dpap.anatomy.ownership import tensor_of
from dpap.anatomy.wiring import Attachment
from dpap.surgery.known_optimizers import KnownOptimizers, Watch
from dpap.surgery.masks import Masks
from dpap.surgery.optimizer import reset_curvature, silence_moments
from dpap.surgery.timesteps import BUFFER, silence_timesteps


def dead_tensors(wiring: Wiring, masks: Masks) -> list[tuple[Tensor, Bool[Tensor, "..."]]]:
    """Every parameter and buffer with dead entries, and which entries those are.

    Weights are dead where unit, synapse or feature is; biases and normalisation (weight, bias, running mean
    and variance) where the unit is.
    """
    found: list[tuple[Tensor, Tensor]] = []
    useful = masks.useful(wiring)
    received = Masks(useful, {}, {})
    for name, layer in wiring.layers.items():
        if layer.fixed:
            continue
        units, features = useful[name], received.features(layer)
        for matrix, read in matrices_of(layer.module):
            weight, bias = weight_of(matrix), bias_of(matrix)
            dead = ~between(matrix, units, features[read]).to(weight.device)
            if name in masks.synapses:
                dead = dead | ~as_weight(masks.synapses[name], matrix).to(weight.device)
            if dead.any():
                found.append((weight, dead))
            if bias is not None and not units.all():
                found.append((bias, ~by_row(units, matrix).to(bias.device)))
        for further, belonging in layer.further.items():
            if belonging.unit is not None and not units.all():
                tensor = tensor_of(layer.module, further)
                found.append((tensor, _along(~units, belonging.unit, tensor)))
    for attachment in wiring.attachments.values():
        if neuron_kind(attachment.module) is not None:
            # silent because it has no input; a threshold of zero would let it fire
            continue
        dead = ~received.features(attachment)
        if dead.any():
            for tensor, axis in unit_parts(attachment):
                found.append((tensor, _along(dead, axis, tensor)))
    return found


def _along(dead: Bool[Tensor, "_"], axis: int, tensor: Tensor) -> Bool[Tensor, "..."]:
    """Which entries of a tensor are dead, where those along an axis are."""
    shape = [1] * tensor.ndim
    shape[axis] = -1
    return dead.to(tensor.device).view(shape).expand(tensor.shape).contiguous()


def unit_parts(attachment: Attachment) -> Iterator[tuple[Tensor, int]]:
    """Parameters and buffers of an attachment with one value per feature, and the axis that counts them."""
    for name, axis in attachment.tensors.items():
        yield tensor_of(attachment.module, name), axis


Dead = Sequence[tuple[Tensor, Bool[Tensor, "..."]]]
"""Parameters and buffers, each with which of its entries are dead."""


@torch.no_grad()
def impose(model: nn.Module, wiring: Wiring, masks: Masks, optimizers: Sequence[Optimizer]) -> None:
    """Clear values, gradients and moments of the dead, and let no neuron fire at its dead timesteps."""
    _clear_all(dead_tensors(wiring, masks), optimizers)
    _impose_timesteps(model, wiring, masks)


def _clear_all(found: Dead, optimizers: Sequence[Optimizer]) -> None:
    if any(bool(tensor[dead].any()) for tensor, dead in found):
        for optimizer in optimizers:
            reset_curvature(optimizer)
    for tensor, dead in found:
        _clear(tensor, dead)
        _clear(tensor.grad, dead)
        for optimizer in optimizers:
            if isinstance(tensor, Parameter):
                silence_moments(optimizer, tensor, dead)


def _impose_timesteps(model: nn.Module, wiring: Wiring, masks: Masks) -> None:
    for name, alive in masks.timesteps.items():
        neuron = wiring.neuron_of(wiring.layers[name])
        if neuron is None or neuron.time_axis is None:
            continue
        of_site = torch.ones(alive.shape[0], neuron.features, dtype=torch.bool, device=alive.device)
        fed = neuron.feeds[name]
        known = (fed >= 0).nonzero().flatten().to(alive.device)
        of_site[:, known] = alive[:, fed[fed >= 0].to(alive.device)]
        module = model.get_submodule(neuron.site.module)
        if BUFFER not in module._buffers and bool(of_site.all()):
            continue
        silence_timesteps(module, of_site, neuron.time_axis, neuron.axis)


class Silence:
    """Keeps the dead at zero: weights, biases, normalisation, their gradients and their optimizer's moments.

    Gradients of the dead are cleared as soon as they arrive, so that code that reads gradients (clipping, a gradient
    scaler) gets what it would get without the dead. Their values are cleared after each step of the optimizers, and
    before a forward of the network that finds them written to since, as by a moving average that is copied back or by
    noise. Not every way of writing shows: without an optimizer, where a wrapper may write after it has stepped, and in
    evaluation they are cleared before every forward. An optimizer that was not given is noticed when it steps, and
    named when it changes the dead.

    Args:
        model: the network.
        wiring: its wiring.
        optimizers: every optimizer that changes its parameters.
    """

    def __init__(self, model: nn.Module, wiring: Wiring, optimizers: Sequence[Optimizer]) -> None:
        self.model = model
        self.wiring = wiring
        self.optimizers = (
            optimizers if isinstance(optimizers, KnownOptimizers) else KnownOptimizers(optimizers)
        )
        self._dead: list[tuple[Tensor, Tensor]] = []
        self._written: list[tuple[int, int]] = []
        self._learning: list[bool] = []
        self._gradient_handles: list[Any] = []
        self._handles: list[Any] = [Around(model, "before", self._before_forward)]
        for optimizer in self.optimizers.given:
            self._handles.append(optimizer.register_step_pre_hook(Hook(self._before_step)))
            self._handles.append(optimizer.register_step_post_hook(Hook(self._after_step)))
        self._watch = Watch(model, self.optimizers, self._after_foreign_step)
        self._named: set[int] = set()

    def impose(self, masks: Masks) -> None:
        """From now on exactly what is dead in `masks` is silent; clears it at once."""
        self.hold(dead_tensors(self.wiring, masks))
        _impose_timesteps(self.model, self.wiring, masks)

    @torch.no_grad()
    def hold(self, dead: Dead) -> None:
        """From now on exactly these entries are silent; clears them at once."""
        _clear_all(dead, self.optimizers)
        self._dead = list(dead)
        self._written = self._versions()
        self._watch_gradients()

    def _watch_gradients(self) -> None:
        for handle in self._gradient_handles:
            handle.remove()
        self._learning = [tensor.requires_grad for tensor, _ in self._dead]
        self._gradient_handles = [
            tensor.register_post_accumulate_grad_hook(_clearing(dead))
            for tensor, dead in self._dead
            if tensor.requires_grad
        ]

    @property
    def lent(self) -> bool:
        """Whether other tensors stand in the place of the parameters now, as in `torch.func.functional_call`."""
        return any(not isinstance(one, Parameter) for one in self.model.parameters())

    @torch.no_grad()
    def renew(self, masks: Masks) -> None:
        """Silence again what was written into the dead, also where parameters are new objects; warns of it."""
        dead = dead_tensors(self.wiring, masks)
        revived = revived_weights(dead)
        same = [id(tensor) for tensor, _ in dead] == [id(tensor) for tensor, _ in self._dead]
        if not same or _revived(dead):
            self.hold(dead)
        _impose_timesteps(self.model, self.wiring, masks)
        # without a given optimizer, or with a wrapper of it, other code may write them at every step
        if revived and self.optimizers.given and not self.optimizers.wrappers:
            warn_of_revived(revived)

    def remove(self) -> None:
        """Remove the hooks; the dead stay zero only as long as nothing changes them."""
        for handle in (*self._handles, *self._gradient_handles):
            handle.remove()
        self._handles.clear()
        self._gradient_handles.clear()
        self._watch.remove()

    def _clear_values(self) -> None:
        for tensor, dead in self._dead:
            # the same storage, so that a graph that still needs the tensor does not take this for a change of it
            _clear(tensor.data, dead)
        self._written = self._versions()

    def _versions(self) -> list[tuple[int, int]]:
        """What changes when a tensor is written to, or gets another storage."""
        return [
            (-1 if tensor.is_inference() else tensor._version, tensor.data_ptr()) for tensor, _ in self._dead
        ]

    def _clear_gradients(self) -> None:
        for tensor, dead in self._dead:
            _clear(tensor.grad, dead)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        # of parameters that were frozen when their units died, and of gradients that other code wrote
        with torch.no_grad():
            self._clear_gradients()

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._clear_values()

    @torch.no_grad()
    def _after_foreign_step(self, optimizer: Optimizer) -> None:
        if id(optimizer) not in self._named and (changed := _revived(self._dead)):
            self._named.add(id(optimizer))
            name = type(optimizer).__name__
            for tensor, dead in self._dead:
                if isinstance(tensor, Parameter) and tensor.shape == dead.shape:
                    silence_moments(optimizer, tensor, dead)
            warnings.warn(
                f"{name} was not given to Pruner and changed {changed:,} dead weights; from now on they are silenced "
                "after each of its steps: give it, Pruner(model, example_inputs, optimizer)",
                stacklevel=2,
            )
        self._clear_values()

    @torch.no_grad()
    def _before_forward(self, *forward: Any) -> None:
        if not self._dead:
            return
        if self._learning != [tensor.requires_grad for tensor, _ in self._dead]:
            self._watch_gradients()
        hidden = not self.model.training or not self.optimizers.given or self.optimizers.wrappers
        if (hidden or self._written != self._versions()) and not self.lent:
            self._clear_values()


def revived_weights(dead: Dead) -> int:
    """How many dead entries of parameters are not zero."""
    return _revived([pair for pair in dead if isinstance(pair[0], Parameter)])


def warn_of_revived(count: int, where: str = "") -> None:
    """Warn that dead weights were written to."""
    warnings.warn(
        f"{count:,} dead weights were no longer zero{where}, as after weights of an earlier epoch were loaded, and "
        "were silenced again: to go back to an earlier epoch, load the pruner's state of that epoch too, "
        "pruner.load_state_dict(...)",
        stacklevel=8,
    )


def _revived(dead: Dead) -> int:
    """How many of the dead entries are not zero."""
    fitting = [(tensor, entries) for tensor, entries in dead if tensor.shape == entries.shape]
    if not fitting:
        return 0
    counts = [(tensor.ne(0) & entries).count_nonzero().cpu() for tensor, entries in fitting]
    return int(torch.stack(counts).sum())


def _clear(tensor: Tensor | None, dead: Bool[Tensor, "..."]) -> None:
    # between a removal and the next impose() the dead are gone already, and what remains is zero
    if tensor is not None and tensor.shape == dead.shape:
        # a graph that is still to run backwards may hold it: what is dead in it matters no more
        tensor.data.masked_fill_(dead, 0)


def _clearing(dead: Bool[Tensor, "..."]) -> Callable[[Tensor], None]:
    return lambda parameter: _clear(parameter.grad, dead)
