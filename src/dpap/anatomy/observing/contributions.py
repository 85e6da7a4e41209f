"""What every unit, synapse and neuron-timestep contributes to the loss, to first order, from the gradients of training.

The sum of w dL/dw over the synapses that read a unit is the sum of a dL/da over its activity a in all samples: by how
much the loss would fall, to first order, if the unit fell silent. It is made of weights and gradients that are there
anyway when an optimizer steps, after unscaling, accumulation and the reduction between processes; no activity is
recorded.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from dpap.anatomy.layers import (
    as_rows,
    bias_of,
    by_unit,
    is_depthwise,
    matrices_of,
    sum_over_features,
    sum_over_units,
    weight_of,
)
from dpap.anatomy.neurons import neuron_kind
from dpap.anatomy.observing.axes import map_summed
from dpap.anatomy.observing.gather import FeatureSums
from dpap.anatomy.observing.hooks import Around, Hook, in_backward
from dpap.anatomy.staining.codes import MIXED, NO_UNIT
from dpap.anatomy.wiring import Attachment, WeightLayer, Wiring
from dpap.plasticity import Contribution


class ContributionRecorder:
    """Hooks that pass on what each layer contributes to the loss at every n-th step of the optimizers.

    A unit's contribution is taken where it is read. Where it is read through weights that have no gradient of their
    own (frozen, parametrised, shared) or where features are mixed, it is taken where the unit's input arrives: at the
    weight and bias of its normalisation, or else at its own weight and bias.

    Args:
        model: the network.
        wiring: its wiring.
        units: layers whose units are wanted.
        synapses: layers of which single synapses are wanted too.
        timesteps: layers of which neuron-timesteps are wanted too.
        every: take every n-th step.
        receive: called with the contributions by layer; a layer without gradients is missing.
        optimizers: a step of all of them is one step. Without any, every backward pass is one.
        active: whether anything is taken now.
        average: averages tensors over the processes that train the network together; called once in a step that is
            taken, where something of it is of this process alone: gradients of spikes, and those within a closure.
    """

    def __init__(
        self,
        model: nn.Module,
        wiring: Wiring,
        units: Collection[str],
        synapses: Collection[str],
        timesteps: Collection[str],
        every: int,
        receive: Callable[[dict[str, Contribution]], None],
        optimizers: Sequence[Optimizer] = (),
        active: Callable[[], bool] = lambda: True,
        average: Callable[[Sequence[Tensor]], list[Tensor]] | None = None,
    ) -> None:
        self.active = active
        self.wiring = wiring
        self.every = every
        self.receive = receive
        self._average = average
        self._timesteps = tuple(timesteps)
        self._taken = self._within = False
        self._units = tuple(units)
        self._synapses = frozenset(synapses)
        self._routes: dict[str, list[_Route]] = {}
        self._spike_sums: dict[str, FeatureSums] = {}
        self._parameters = tuple(self._listed())
        self._found: dict[_Key, Tensor] = {}
        self._single: dict[str, Tensor] = {}
        self._in_closure: list[RemovableHandle] = []
        self._spikes: dict[str, Tensor] = {}
        self._stepped: set[int] = set()
        self.steps = 0
        self._optimizers = tuple(optimizers)
        self._handles: list[RemovableHandle | Around] = []
        for number, optimizer in enumerate(self._optimizers):
            self._handles.append(optimizer.register_step_pre_hook(self._before_step(number)))
            self._handles.append(optimizer.register_step_post_hook(self._after_step(number)))
        if not self._optimizers:
            self._handles += self._watch_gradients()
            self._handles.append(Around(model, "before", self._before_forward))
        self._watch_spikes(model, timesteps)

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def begin_epoch(self) -> None:
        """Count from anew, so that every epoch takes its first step."""
        self.end_step()
        self.steps = 0

    def rewire(self) -> None:
        """Follow the wiring after a removal."""
        self._routes.clear()
        self._spike_sums.clear()
        self._parameters = tuple(self._listed())
        self._found.clear()
        self._single.clear()
        self._spikes.clear()

    @torch.no_grad()
    def end_step(self) -> None:
        """Pass on what was found since the last step."""
        found, single, spikes = self._found, self._single, self._spikes
        self._found, self._single, self._spikes = {}, {}, {}
        self._stepped.clear()
        taken, within, self._taken, self._within = self._taken, self._within, False, False
        units = {name: total for name in self._units if (total := self._of_units(name, found)) is not None}
        if self._average is not None and taken:
            if self._timesteps:
                spikes = self._averaged(spikes, self._timesteps, self._blank_timesteps)
            if within:
                units = self._averaged(units, self._units, self._blank_units)
                single = self._averaged(single, sorted(self._synapses), self._blank_synapses)
        if not units:
            return
        scale = _joint_norm(spikes.values())
        contributions = {}
        for name, total in units.items():
            times = spikes.get(name)
            contributions[name] = Contribution(
                total, single.get(name), None if times is None else times / scale
            )
        self.receive(contributions)

    def _averaged(
        self, own: Mapping[str, Tensor], names: Sequence[str], blank: Callable[[str], Tensor]
    ) -> dict[str, Tensor]:
        """Averages over the processes, in the order of names, of what any of them has; zeros where one has nothing."""
        if self._average is None:
            return dict(own)
        has = torch.tensor([name in own for name in names], dtype=torch.float64)
        parts = [own[name] if name in own else blank(name) for name in names]
        has, *means = self._average([has, *parts])
        return {name: mean for name, mean, any_has in zip(names, means, has.tolist(), strict=True) if any_has}

    def _blank_units(self, name: str) -> Tensor:
        weight = weight_of(self.wiring.layers[name].module)
        dtype = torch.promote_types(weight.dtype, torch.float32).to_real()
        return torch.zeros(self.wiring.layers[name].units, dtype=dtype, device=weight.device)

    def _blank_synapses(self, name: str) -> Tensor:
        return self._blank_units(name)[:, None].expand(-1, self.wiring.layers[name].features).clone()

    def _blank_timesteps(self, name: str) -> Tensor:
        neuron = self.wiring.neuron_of(self.wiring.layers[name])
        times = 0 if neuron is None else neuron.timesteps
        return self._blank_units(name).float().expand(times, -1).clone()

    def _before_forward(self, *forward: Any) -> None:
        # a checkpointed forward runs again within the backward pass, which is the same step
        if not in_backward():
            self.end_step()

    def _before_step(self, number: int) -> Callable[..., None]:
        def hook(optimizer: Optimizer, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            if number in self._stepped:
                self.end_step()
            if not self._stepped:
                self.steps += 1
            if not self._chosen:
                return
            self._taken = True
            own = self._of_optimizer(number)
            if _closure(args, options):
                # the step computes the gradients itself and then moves the weights: they are taken as they arrive
                self._within = True
                self._in_closure = self._watch_gradients({id(one) for _, one in own})
                return
            # fused optimizers unscale in the step
            scale = getattr(optimizer, "grad_scale", None)
            for key, parameter in own:
                self._measure(key, parameter, scale)

        return hook

    def _after_step(self, number: int) -> Callable[..., None]:
        def hook(optimizer: Optimizer, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            for handle in self._in_closure:
                handle.remove()
            self._in_closure = []
            self._stepped.add(number)
            if len(self._stepped) == len(self._optimizers):
                self.end_step()

        return hook

    def _of_optimizer(self, number: int) -> list[tuple["_Key", nn.Parameter]]:
        """The parameters that one optimizer steps; the first also has those that none does."""
        owners: dict[int, int] = {}
        for place, optimizer in enumerate(self._optimizers):
            for group in optimizer.param_groups:
                owners.update((id(parameter), place) for parameter in group["params"])
        return [(key, one) for key, one in self._parameters if owners.get(id(one), 0) == number]

    def _watch_gradients(self, chosen: Collection[int] | None = None) -> list[RemovableHandle]:
        """Take parameters, all or those of the given ids, whenever their gradients have arrived."""
        watched = {
            id(one): one
            for _, one in self._parameters
            if one.requires_grad and (chosen is None or id(one) in chosen)
        }
        return [one.register_post_accumulate_grad_hook(self._after_backward) for one in watched.values()]

    def _after_backward(self, parameter: Tensor) -> None:
        if not self.active():
            return
        for key, one in self._parameters:
            if one is parameter:
                self._measure(key, parameter, None)

    @property
    def _chosen(self) -> bool:
        return self.active() and (not self._optimizers or (self.steps - 1) % self.every == 0)

    def _listed(self) -> Iterator[tuple["_Key", nn.Parameter]]:
        """Every parameter of which the contribution is of use, with what it says."""
        for name, layer in self.wiring.layers.items():
            for number, (matrix, _) in enumerate(matrices_of(layer.module)):
                weight, bias = weight_of(matrix), bias_of(matrix)
                if isinstance(weight, nn.Parameter):
                    yield _Key(name, WEIGHT, number), weight
                if isinstance(bias, nn.Parameter):
                    yield _Key(name, BIAS, number), bias
        for name, attachment in self.wiring.attachments.items():
            for part in _affine(attachment):
                yield _Key(name, part), getattr(attachment.module, part)

    @torch.no_grad()
    def _measure(self, key: "_Key", parameter: Tensor, scale: Tensor | None) -> None:
        gradient = parameter.grad
        if gradient is None or gradient.shape != parameter.shape:
            return
        precision = torch.promote_types(parameter.dtype, torch.float32)
        if gradient.is_sparse:
            gradient = gradient.to_dense()
        each = parameter.detach().to(precision) * gradient.to(precision)
        if each.is_complex():
            # the loss changes by the real part of conj(w) dL/dw
            each = (parameter.detach().to(precision).conj() * gradient.to(precision)).real
        if scale is not None:
            each /= scale
        if key.part not in (WEIGHT, BIAS):
            self._found[key] = each
            return
        matrix = list(matrices_of(self.wiring.layers[key.module].module))[key.matrix][0]
        if key.part == BIAS:
            self._found[key] = by_unit(each, matrix).sum(1)
            return
        self._found[replace(key, part=READ)] = sum_over_units(each, matrix)
        self._found[key] = sum_over_features(each, matrix)
        if key.module in self._synapses:
            self._single[key.module] = as_rows(each, matrix)

    def _of_units(self, name: str, found: Mapping["_Key", Tensor]) -> Tensor | None:
        if name not in self._routes:
            self._routes[name] = list(self._routes_of(self.wiring.layers[name]))
        total: Tensor | None = None
        for route in self._routes[name]:
            if route.key not in found:
                continue  # nothing was read there: a branch that this step did not take
            part = route.sums(found[route.key])
            total = part if total is None else total + part.to(total.device)
        return total

    def _routes_of(self, layer: WeightLayer) -> Iterator["_Route"]:
        """Where the contributions of a layer's units are summed from."""
        readers = [
            reader
            for reader in self.wiring.layers.values()
            if layer.name in reader.feeds and bool((reader.feeds[layer.name] != NO_UNIT).any())
        ]
        if readers and all(_readable(reader, layer.name) for reader in readers):
            for reader in readers:
                for number, (_, features) in enumerate(matrices_of(reader.module)):
                    fed = reader.feeds[layer.name][features]
                    if bool((fed >= 0).any()):
                        yield _Route(_Key(reader.name, READ, number), FeatureSums(fed, layer.units))
            return
        norms = [
            attachment
            for attachment in self.wiring.attachments.values()
            if _affine(attachment)
            and layer.name in attachment.feeds
            and bool((attachment.feeds[layer.name] >= 0).any())
        ]
        for norm in norms:
            sums = FeatureSums(norm.feeds[layer.name], layer.units)
            for part in _affine(norm):
                yield _Route(_Key(norm.name, part), sums)
        if norms:
            return
        sums = FeatureSums(torch.arange(layer.units), layer.units)
        for number, (matrix, _) in enumerate(matrices_of(layer.module)):
            yield _Route(_Key(layer.name, WEIGHT, number), sums)
            if bias_of(matrix) is not None:
                yield _Route(_Key(layer.name, BIAS, number), sums)

    def _watch_spikes(self, model: nn.Module, timesteps: Collection[str]) -> None:
        by_module: dict[str, list[tuple[str, int]]] = {}
        for name in timesteps:
            neuron = self.wiring.neuron_of(self.wiring.layers[name])
            if neuron is not None and neuron.time_axis is not None:
                by_module.setdefault(neuron.site.module, []).append((name, neuron.site.call))
        for module, watched in by_module.items():
            watcher = _SpikeWatcher(self, watched)
            self._handles.append(Around(model, "before", watcher.begin))
            self._handles.append(model.get_submodule(module).register_forward_hook(Hook(watcher.watch)))

    def take_spikes(self, name: str, spikes: Tensor, gradient: Tensor) -> None:
        """Add the contributions of spikes to those of their neurons' timesteps."""
        neuron = self.wiring.neuron_of(self.wiring.layers[name])
        if neuron is None or neuron.time_axis is None:
            return
        each = map_summed((spikes * gradient).float(), neuron.axis)
        by_time = each.movedim(neuron.time_axis, 0).flatten(1, -2).sum(1)
        # its step may never come, and the next one's contributions are added
        by_time = torch.where(by_time.isfinite().all(), by_time, 0.0)
        if name not in self._spike_sums:
            self._spike_sums[name] = FeatureSums(neuron.feeds[name], self.wiring.layers[name].units)
        units = self._spike_sums[name](by_time)
        self._spikes[name] = self._spikes[name] + units if name in self._spikes else units

    @property
    def takes_next(self) -> bool:
        """Whether the step that is being prepared is one of those that are taken."""
        return self.active() and (not self._optimizers or self.steps % self.every == 0)


class _SpikeWatcher:
    """Watches the calls of one neuron module in every training forward."""

    def __init__(self, recorder: ContributionRecorder, watched: list[tuple[str, int]]) -> None:
        self.recorder = recorder
        self.watched = watched
        self.calls = 0

    def begin(self, *forward: Any) -> None:
        if not in_backward():
            self.calls = 0

    def watch(self, module: nn.Module, args: Any, output: Any) -> None:
        if not torch.is_grad_enabled():
            # within a checkpoint that runs the call again, with gradients
            return
        spikes = output[0] if isinstance(output, tuple) else output
        call, self.calls = self.calls, self.calls + 1
        if not (module.training and spikes.requires_grad and self.recorder.takes_next):
            return
        names = [name for name, number in self.watched if number == call]
        if names:
            emitted = spikes.detach()

            def hook(gradient: Tensor) -> None:
                for name in names:
                    self.recorder.take_spikes(name, emitted, gradient)

            spikes.register_hook(torch.no_grad()(hook))


@dataclass(frozen=True)
class _Key:
    """A module, and a parameter of it or what is summed from one; of several matrices, which."""

    module: str
    part: str
    matrix: int = 0


WEIGHT, BIAS, READ = "weight of each unit", "bias of each unit", "weight by feature"
"""Parts of weight layers; those of normalisations are called as their parameters."""


@dataclass(frozen=True)
class _Route:
    """What is found under a key, summed over the features that each unit feeds there."""

    key: _Key
    sums: FeatureSums


def _readable(reader: WeightLayer, source: str) -> bool:
    """Whether the weights of a reader have gradients of their own, feature by feature of the source."""
    own = all(isinstance(weight, nn.Parameter) and weight.requires_grad for weight in reader.tensors())
    mixed = bool((reader.feeds[source] == MIXED).any())
    return own and not (reader.fixed or mixed)


def _affine(attachment: Attachment) -> tuple[str, ...]:
    """Weight and bias of a normalisation, one value per feature each; nothing of other modules."""
    module = attachment.module
    if is_depthwise(module) or neuron_kind(module) is not None:
        return ()
    parts = ("weight", "bias")
    own = all(isinstance(module._parameters.get(part), nn.Parameter) for part in parts)
    return parts if own and all(part in attachment.tensors for part in parts) else ()


def _closure(args: tuple[Any, ...], options: dict[str, Any]) -> bool:
    """Whether an optimizer's step was given a closure."""
    return any(callable(one) for one in (*args, *options.values()))


def _joint_norm(tensors: Collection[Tensor]) -> float | Tensor:
    """The norm over all of them, so that steps count alike whatever factor a gradient scaler put on them."""
    squares = [one.square().sum() for one in tensors]
    if not squares:
        return 1.0
    return torch.stack([one.to(squares[0].device) for one in squares]).sum().sqrt().clamp(min=1e-30)
