"""What every unit, synapse and neuron-timestep contributes to the loss, to first order, from the gradients of training.

The sum of w dL/dw over the synapses that read a unit is the sum of a dL/da over its activity a in all samples: by how
much the loss would fall, to first order, if the unit fell silent. It is made of weights and gradients that are there
anyway when an optimizer steps, after unscaling, accumulation and the reduction between processes; no activity is
recorded.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from dpap.anatomy.layers import (
    as_rows,
    by_unit,
    matrices_of,
    sum_over_features,
    sum_over_units,
    weight_of,
)
from dpap.anatomy.observing.axes import map_summed
from dpap.anatomy.observing.gather import FeatureSums
from dpap.anatomy.observing.hooks import Around, Hook, in_backward, in_transform
from dpap.anatomy.observing.routes import BIAS, READ, WEIGHT, Key, Route, listed, routes_of
from dpap.anatomy.observing.sampling import UNSAMPLED, StepSampler
from dpap.anatomy.wiring import Wiring
from dpap.plasticity import Contribution


class ContributionRecorder:
    """Hooks that pass on what each layer contributes to the loss at one of every n steps of the optimizers.

    A unit's contribution is taken where it is read. Where it is read through weights that have no gradient of their
    own (frozen, parametrised, shared) or where features are mixed, it is taken where the unit's input arrives: at the
    weight and bias of its normalisation, or else at its own weight and bias.

    Args:
        model: the network.
        wiring: its wiring.
        units: layers whose units are wanted.
        synapses: layers of which single synapses are wanted too.
        timesteps: layers of which neuron-timesteps are wanted too.
        every: take one of every n steps of each optimizer.
        receive: called with the contributions by layer; a layer without gradients is missing.
        optimizers: a step of all of them is one step; one that steps less often than others joins theirs when it does.
            Without any, every backward pass is a step, and all are taken.
        others: further optimizers of its parameters, as far as they are known, whose steps are not waited for. What
            none steps has gradients of any age, and is not taken.
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
        others: Iterable[Optimizer] = (),
    ) -> None:
        self.active = active
        self.wiring = wiring
        self.receive = receive
        self._average = average
        self._timesteps = tuple(timesteps)
        self._taken = self._within = False
        self._units = tuple(units)
        self._synapses = frozenset(synapses)
        self._routes: dict[str, list[Route]] = {}
        self._others = others
        # the parameters that learn, by id: which routes there are depends on them
        self._learning: frozenset[int] = frozenset()
        self._spike_sums: dict[str, FeatureSums] = {}
        self._parameters = tuple(listed(self.wiring))
        self._found: dict[Key, Tensor] = {}
        self._single: dict[str, Tensor] = {}
        self._in_closure: list[RemovableHandle] = []
        self._spikes: dict[str, Tensor] = {}
        self._stepped: set[int] = set()
        self._ended: frozenset[int] = frozenset()
        # of optimizers that step less often than others, what was found of their parameters last
        self._held: dict[Key, Tensor] = {}
        self._optimizers = tuple(optimizers)
        self.samplers = [StepSampler(every) for _ in self._optimizers]
        self._handles: list[RemovableHandle | Around] = []
        for number, optimizer in enumerate(self._optimizers):
            self._handles.append(optimizer.register_step_pre_hook(Hook(self._before_step(number))))
            self._handles.append(optimizer.register_step_post_hook(Hook(self._after_step(number))))
        self._watched: list[RemovableHandle] = []
        self._look_what_learns()
        if not self._optimizers:
            self._handles.append(Around(model, "before", self._before_forward))
        self._watch_spikes(model, timesteps)

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in (*self._handles, *self._watched):
            handle.remove()
        self._handles.clear()
        self._watched.clear()

    def begin_epoch(self) -> None:
        """Count from anew, so that every epoch takes its first steps."""
        self.end_step()
        for sampler in self.samplers:
            sampler.begin_epoch()

    def rewire(self) -> None:
        """Follow the wiring after a removal."""
        self._routes.clear()
        self._spike_sums.clear()
        self._parameters = tuple(listed(self.wiring))
        for found in (self._found, self._held, self._single, self._spikes):
            found.clear()

    def _look_what_learns(self) -> None:
        """Follow what is frozen or not, or given to an optimizer, since the last look."""
        stepped = None
        if self._optimizers:
            everyone = (*self._optimizers, *self._others)
            stepped = {id(one) for each in everyone for group in each.param_groups for one in group["params"]}
        learning = frozenset(
            id(one)
            for _, one in self._parameters
            if one.requires_grad and (stepped is None or id(one) in stepped)
        )
        if learning != self._learning:
            self._learning = learning
            self._routes.clear()
            if not self._optimizers:
                for handle in self._watched:
                    handle.remove()
                self._watched = self._watch_gradients(learning)

    @torch.no_grad()
    def end_step(self) -> None:
        """Pass on what was found since the last step."""
        fresh, single, spikes = self._found, self._single, self._spikes
        self._found, self._single, self._spikes = {}, {}, {}
        found = self._with_held(fresh)
        self._ended = frozenset(self._stepped)
        self._stepped.clear()
        taken, within, self._taken, self._within = self._taken, self._within, False, False
        units = {
            name: total for name in self._units if (total := self._of_units(name, found, fresh)) is not None
        }
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

    def _with_held(self, fresh: dict[Key, Tensor]) -> dict[Key, Tensor]:
        """What was found, with what was found last of optimizers that did not step now."""
        if len(self._stepped) == len(self._optimizers):
            self._held = {}
            return fresh
        if not fresh:
            return fresh
        waiting = [place for place in range(len(self._optimizers)) if place not in self._stepped]
        theirs = {key for place in waiting for key, _ in self._of_optimizer(place)}
        # sums of weights by feature go with the weight
        held = {
            key: one
            for key, one in self._held.items()
            if replace(key, part=WEIGHT) in theirs or key in theirs
        }
        self._held = {**held, **fresh}
        return self._held

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
            self._look_what_learns()

    def _before_step(self, number: int) -> Callable[..., None]:
        def hook(optimizer: Optimizer, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            if number in self._stepped:
                self.end_step()
            if not (self.samplers[number].take() and self.active()):
                return
            self._taken = True
            self._look_what_learns()
            own = [(key, one) for key, one in self._of_optimizer(number) if id(one) in self._learning]
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

    def _of_optimizer(self, number: int) -> list[tuple[Key, nn.Parameter]]:
        """The parameters that one optimizer steps; the first also has those that none does."""
        owners: dict[int, int] = {}
        for place, optimizer in enumerate(self._optimizers):
            for group in optimizer.param_groups:
                owners.update((id(parameter), place) for parameter in group["params"])
        return [(key, one) for key, one in self._parameters if owners.get(id(one), 0) == number]

    def _watch_gradients(self, chosen: Collection[int]) -> list[RemovableHandle]:
        """Take the parameters of these ids whenever their gradients have arrived."""
        watched = {id(one): one for _, one in self._parameters if id(one) in chosen}
        return [one.register_post_accumulate_grad_hook(self._after_backward) for one in watched.values()]

    def _after_backward(self, parameter: Tensor) -> None:
        if not self.active():
            return
        keys = [key for key, one in self._parameters if one is parameter]
        if not self._optimizers and any(key in self._found for key in keys):
            # another backward pass, of a forward that was not the network's own, such as one of a part of it
            self.end_step()
        for key in keys:
            self._measure(key, parameter, None)

    @torch.no_grad()
    def _measure(self, key: Key, parameter: Tensor, scale: Tensor | None) -> None:
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
        self._found |= self._parts(key, each)
        if key.part == WEIGHT and key.module in self._synapses:
            self._single[key.module] = as_rows(each, self._matrix(key))

    def _parts(self, key: Key, each: Tensor) -> dict[Key, Tensor]:
        """What is summed of the contributions of a parameter's entries: of a weight, by unit and by feature."""
        if key.part not in (WEIGHT, BIAS):
            return {key: each}
        matrix = self._matrix(key)
        if key.part == BIAS:
            return {key: by_unit(each, matrix).sum(1)}
        return {replace(key, part=READ): sum_over_units(each, matrix), key: sum_over_features(each, matrix)}

    def _matrix(self, key: Key) -> nn.Module:
        return list(matrices_of(self.wiring.layers[key.module].module))[key.matrix][0]

    def _of_units(self, name: str, found: Mapping[Key, Tensor], fresh: Collection[Key]) -> Tensor | None:
        if name not in self._routes:
            layer = self.wiring.layers[name]
            self._routes[name] = list(routes_of(self.wiring, layer, lambda one: id(one) in self._learning))
        if not any(route.key in fresh for route in self._routes[name]):
            return None
        total: Tensor | None = None
        for route in self._routes[name]:
            if route.key not in found:
                continue  # nothing was read there: a branch that this step did not take
            part = route.sums(found[route.key])
            total = part if total is None else total + part.to(total.device)
        return total

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
        return self.active() and (not self.samplers or any(one.takes_next for one in self.samplers))

    def take_again(self) -> None:
        """Take the next step in the place of the last one."""
        for place, sampler in enumerate(self.samplers):
            if place in self._ended:
                sampler.again()

    def state_dict(self) -> dict[str, Any]:
        """Which steps come next, and what was found of one that not all optimizers have made yet."""
        return {
            "samplers": {str(place): sampler.state() for place, sampler in enumerate(self.samplers)},
            "stepped": {str(place): True for place in sorted(self._stepped)},
            "taken": self._taken,
            "within": self._within,
            "found": {key.text: one.clone() for key, one in self._found.items()},
            "held": {key.text: one.clone() for key, one in self._held.items()},
            "single": {name: one.clone() for name, one in self._single.items()},
            "spikes": {name: one.clone() for name, one in self._spikes.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave, of as many optimizers."""
        for place, sampler in enumerate(self.samplers):
            # one that was added since goes with the first
            sampler.load_state(state["samplers"].get(str(place), state["samplers"].get("0", UNSAMPLED)))
        self._stepped = {place for place in range(len(self._optimizers)) if str(place) in state["stepped"]}
        self._taken, self._within = state["taken"], state["within"]
        device = next((one.device for _, one in self._parameters), None)
        own = {
            part: {name: state[part][name].to(device, copy=True) for name in known}
            for part, known in self.forms(state).items()
        }
        self._found, self._held = (
            {Key.of(text): one for text, one in own[part].items()} for part in ("found", "held")
        )
        self._single, self._spikes = own["single"], own["spikes"]

    def forms(self, state: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
        """What a state holds of steps that are not over, as zeros; without what belongs to no layer of this network."""
        blanks = {
            "single": {
                name: self._blank_synapses(name) for name in self._synapses if name in state["single"]
            },
            "spikes": {
                name: self._blank_timesteps(name) for name in self._timesteps if name in state["spikes"]
            },
        }
        if state["found"] or state["held"]:
            everything = {
                key.text: part
                for own, parameter in self._parameters
                for key, part in self._parts(own, torch.zeros_like(parameter).real).items()
            }
            for name in ("found", "held"):
                blanks[name] = {text: everything[text] for text in everything.keys() & state[name].keys()}
        return {part: blanks.get(part, {}) for part in ("found", "held", "single", "spikes")}


def unobserved() -> dict[str, Any]:
    """The state of a recorder before the first step."""
    return {
        "samplers": {}, "stepped": {}, "taken": False, "within": False,
        "found": {}, "held": {}, "single": {}, "spikes": {},
    }  # fmt: skip


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
        if not torch.is_grad_enabled() or in_transform():
            # within a checkpoint that runs the call again, with gradients, or where nothing can be kept
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


def _closure(args: tuple[Any, ...], options: dict[str, Any]) -> bool:
    """Whether an optimizer's step was given a closure."""
    return any(callable(one) for one in (*args, *options.values()))


def _joint_norm(tensors: Collection[Tensor]) -> float | Tensor:
    """The norm over all of them, so that steps count alike whatever factor a gradient scaler put on them."""
    squares = [one.square().sum() for one in tensors]
    if not squares:
        return 1.0
    return torch.stack([one.to(squares[0].device) for one in squares]).sum().sqrt().clamp(min=1e-30)
