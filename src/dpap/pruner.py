"""The life cycle of a network that is pruned while it learns: observe, step, compact."""

import math
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dpap.anatomy import NeuronSite, Projection, Wiring, find_wiring
from dpap.anatomy.recording import Recorder, Recording
from dpap.budget import Critical, after_deaths, dead_timesteps, dead_weights, scheduled_share, solve
from dpap.config import PruningConfig
from dpap.plasticity import RULES, Memory, running_traces
from dpap.reports import LayerReport, PruneReport
from dpap.surgery import CompactionError, CompactReport, Living, Silence
from dpap.surgery.compact import Kept, keep_only, remove_dead, what_remains
from dpap.surgery.timesteps import silence_timesteps
from dpap.vitality import Vitality, constants, critical_shift, grown, importances


class Pruner:
    """Prunes a network while it learns, in the training loop of its user.

    The activity of every training forward is observed. `step()`, once an epoch, turns it into importance, moves
    survival, and silences what falls below zero; `compact()` removes the silent units physically. Everything
    works on the network in place, and references to its parameters stay valid.

    Args:
        model: any network whose forward runs on `example_inputs`; give it before wrapping it (compile, DDP).
        example_inputs: what its forward takes: a tensor, or a tuple of positional arguments. A small batch of
            real data is best, for it also serves to check every removal.
        optimizer: the optimizer, or several, of its parameters.
        config: what to prune and how much.

    Attributes:
        wiring: what is connected to what, what can be pruned, and why the rest cannot; print it.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Tensor | tuple[Any, ...],
        optimizer: Optimizer | Sequence[Optimizer] | None = None,
        config: PruningConfig | None = None,
    ) -> None:
        self.model = model
        self.config = config or PruningConfig()
        self.epoch = 0
        self._example = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
        self._optimizers = _as_optimizers(optimizer)
        self.wiring: Wiring = find_wiring(model, self._example)
        self._living = Living.at_birth(
            self.wiring, synapses=self.config.synapses, timesteps=self.config.prunes_timesteps
        )
        if not self._living.units:
            raise ValueError(f"nothing in this network can be pruned:\n{self.wiring}")
        self._born = {name: weights for name, (_, weights) in self._living.weights(self.wiring).items()}
        self._units_born = {name: projection.units for name, projection in self.wiring.projections.items()}
        self._origin = {name: torch.arange(units) for name, units in self._units_born.items()}
        self._memories = {name: self._blank_memory(name) for name in self._living.units}
        self._vitality = {
            name: Vitality.at_birth(self.wiring.projections[name].kind.name, memory, self.config)
            for name, memory in self._memories.items()
        }
        self._silence = Silence(model, self.wiring, self._optimizers)
        self._timestep_hooks: list[Any] = []
        self._recorder = Recorder(model, self.wiring, self.config.observe_every, self._observe)

    @property
    def sparsity(self) -> float:
        """Share of the prunable weights that is dead."""
        return dead_weights(self.wiring, self._living, self._weights_born)

    @property
    def timestep_sparsity(self) -> float:
        """Share of the living neurons' timesteps that is dead; 0.0 where timesteps do not die."""
        return dead_timesteps(self._living)

    def survival(self) -> dict[str, list[float | None]]:
        """Survival F of every unit at birth, by projection; None once it is dead."""
        told: dict[str, list[float | None]] = {}
        for name, vitality in self._vitality.items():
            values: list[float | None] = [None] * self._units_born[name]
            alive = self._living.units[name].tolist()
            for place, value, lives in zip(
                self._origin[name].tolist(), vitality.units.tolist(), alive, strict=True
            ):
                values[place] = value if lives else None
            told[name] = values
        return told

    @torch.no_grad()
    def step(self) -> PruneReport:
        """End an epoch: survival is updated by what was observed, and what falls below zero dies.

        Raises:
            RuntimeError: where no training forward was observed since the last step.
        """
        epoch, config = self.epoch, self.config
        if not self._observed:
            raise RuntimeError(
                "no training forward of the network was observed since the last step: call step() once an epoch, "
                "after training, with the network in training mode (model.train()) and gradients on"
            )
        before = {name: int(alive.sum()) for name, alive in self._living.units.items()}
        target = config.target
        due = None
        if target is not None and config.end_epoch is not None:
            due = scheduled_share(target, epoch + 1, config.start_epoch, config.end_epoch)
        epsilon: dict[str, float] = {}
        over = config.end_epoch is not None and epoch >= config.end_epoch
        if epoch >= config.start_epoch and not over:
            epsilon = self._prune(epoch, due)
            self._impose()
        for memory in self._memories.values():
            RULES[config.rules].begin_epoch(memory)
        self._observed = False
        self._recorder.begin_epoch()
        self.epoch += 1
        compacted = self._compact_if_worth_it() if config.compact == "auto" else None
        return PruneReport(
            epoch=epoch,
            epsilon=epsilon,
            sparsity=self.sparsity,
            timestep_sparsity=self.timestep_sparsity,
            target=due,
            layers=tuple(self._layer_reports(before)),
            compacted=compacted,
        )

    @torch.no_grad()
    def compact(self) -> CompactReport:
        """Remove dead units physically: from parameters, buffers and optimizer state, in place.

        Raises:
            CompactionError: where the network would not compute the same without them; nothing is changed then.
        """
        kept, report = remove_dead(self.model, self.wiring, self._living, self._optimizers, self._example)
        if not kept.everything:
            self._renumber(kept)
        return report

    def detach(self) -> None:
        """Take every observing hook out of the network and its optimizers.

        Silenced timesteps stay silent, for they belong to the network; other dead that were not removed stay zero
        until somebody moves them.
        """
        self._recorder.remove()
        self._silence.remove()

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, as plain tensors and numbers; also the structure of a compacted network."""
        return {
            "epoch": self.epoch,
            "config": self.config.as_dict(),
            "units_at_birth": dict(self._units_born),
            "origin": {name: origin.clone() for name, origin in self._origin.items()},
            "living": {kind: dict(alive) for kind, alive in self._living.copy().tensors()},
            "memories": {name: memory.state_dict() for name, memory in self._memories.items()},
            "vitality": {
                name: {part: value.clone() for part, value in vitality.parts()}
                for name, vitality in self._vitality.items()
            },
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state: a pruner of the dense network shrinks it to the saved structure.

        Load the network's and the optimizer's state after this.

        Raises:
            ValueError: where the state is of another network, or of a network smaller than this one has become.
        """
        if state["units_at_birth"] != self._units_born:
            raise ValueError(
                f"this state is of a network with units {state['units_at_birth']}; this network has "
                f"{self._units_born}: build the network that the state was saved with"
            )
        units = {}
        for name, origin in state["origin"].items():
            place = {unit: index for index, unit in enumerate(self._origin[name].tolist())}
            missing = [unit for unit in origin.tolist() if unit not in place]
            if missing:
                raise ValueError(
                    f"this state holds {len(missing)} units of {name} that were removed from this network: load it "
                    "into a pruner of the freshly built network"
                )
            units[name] = torch.tensor([place[unit] for unit in origin.tolist()], dtype=torch.int64)
        leaving = {}
        for name, kept_units in units.items():
            gone = torch.ones(self.wiring.projections[name].units, dtype=torch.bool)
            gone[kept_units] = False
            leaving[name] = gone
        kept = what_remains(self.wiring, leaving)
        if not kept.everything:
            keep_only(self.model, self.wiring, kept, self._optimizers)
            self._renumber(kept)
        self.epoch = int(state["epoch"])
        for name, memory in self._memories.items():
            memory.load_state_dict(state["memories"][name])
            for part, value in state["vitality"][name].items():
                setattr(self._vitality[name], part, value.to(memory.spines.device, copy=True))
        for kind, alive in self._living.tensors():
            for name, current in alive.items():
                alive[name] = state["living"][kind][name].to(current.device, copy=True)
        self._impose()

    _observed = False
    _refused = False

    @property
    def _weights_born(self) -> int:
        return sum(self._born.values())

    def _neuron(self, projection: Projection) -> NeuronSite | None:
        return self.wiring.neurons[projection.neuron] if projection.neuron is not None else None

    def _blank_memory(self, name: str) -> Memory:
        projection = self.wiring.projections[name]
        synapses = name in self._living.synapses
        weight = projection.module.get_parameter("weight")
        timesteps = self._living.timesteps.get(name)
        return RULES[self.config.rules].blank(
            projection.units,
            projection.features if synapses else 1,
            synapses=synapses,
            timesteps=None if timesteps is None else timesteps.shape[0],
            dtype=torch.float64 if weight.dtype == torch.float64 else torch.float32,
            device=weight.device,
        )

    def _observe(self, recording: Recording) -> None:
        rules, decay = RULES[self.config.rules], self.config.trace_decay
        for name, memory in self._memories.items():
            projection = self.wiring.projections[name]
            pre = recording.inputs.get(name)
            post = recording.outputs.get(projection.neuron) if projection.neuron is not None else None
            if pre is None or post is None or pre.shape[1] != post.shape[1]:
                continue
            post = _of_units(post, projection, self._neuron(projection))
            if memory.synapses is None:
                pre = pre.sum(2, keepdim=True)
            pre, post = pre.to(memory.spines.dtype), post.to(memory.spines.dtype)
            if len(pre) == 1:
                pre = pre.expand(len(post), -1, -1)
            over_time: tuple[Tensor | None, Tensor | None] = (None, None)
            if memory.timesteps is not None:
                over_time = (running_traces(pre.sum(2, keepdim=True), decay)[:, :, 0], post)
            rules.observe(memory, rules.trace(pre, decay), rules.trace(post, decay), *over_time)
        self._observed = True

    def _prune(self, epoch: int, due: float | None) -> dict[str, float]:
        """Move survival by one epoch and let die what it says; returns the decay values used."""
        config = self.config
        importance = {
            name: importances(memory, config, self._alive_parts(name))
            for name, memory in self._memories.items()
        }
        whole, times = Critical(), Critical()
        for name, vitality in self._vitality.items():
            for part, survival in vitality.parts():
                decay = constants(config, vitality.kind if part == "units" else part)
                critical = critical_shift(survival, importance[name][part], decay, epoch, config)
                critical.masked_fill_(~getattr(self._living, part)[name], math.inf)
                getattr(times if part == "timesteps" else whole, part)[name] = critical
        survivals = {name: vitality.units for name, vitality in self._vitality.items()}
        shift, time_shift = 0.0, 0.0
        if due is not None:
            whole.break_ties(epoch)
        if config.timestep_target is not None:
            times.break_ties(epoch)
        times.spare_strongest(self._living, survivals, config.min_units)
        whole.spare_strongest(self._living, survivals, config.min_units)
        exact = config.end_epoch is not None and epoch + 1 >= config.end_epoch
        if due is not None:
            share = partial(dead_weights, self.wiring, born=self._weights_born)
            shift, living = solve(self._living, whole, share, due, exact=exact)
        else:
            living = after_deaths(self._living, whole, 0.0)
        if config.timestep_target is not None and config.end_epoch is not None:
            # last, for the share is one of the neurons that are left
            goal = scheduled_share(config.timestep_target, epoch + 1, config.start_epoch, config.end_epoch)
            time_shift, living = solve(living, times, dead_timesteps, goal, exact=exact)
        elif config.prunes_timesteps:
            living = after_deaths(living, times, 0.0)
        self._living = living
        for name, vitality in self._vitality.items():
            for part, survival in list(vitality.parts()):
                decay = constants(config, vitality.kind if part == "units" else part)
                by = time_shift if part == "timesteps" else shift
                if math.isfinite(by):
                    moved = grown(survival, importance[name][part], decay, by, epoch, config)
                    # the spared start the next epoch at the edge of death, not below it
                    setattr(vitality, part, moved.clamp(min=0))
        used = {"conv": config.conv, "neuron": config.neuron, "synapse": config.synapse}
        epsilon = {kind: decay.epsilon + shift for kind, decay in used.items()}
        if config.prunes_timesteps:
            epsilon["timestep"] = config.timestep.epsilon + time_shift
        return {kind: value for kind, value in epsilon.items() if math.isfinite(value)}

    def _alive_parts(self, name: str) -> dict[str, Tensor]:
        """What of a projection lives and can be compared: dead features take their synapses along."""
        projection, units = self.wiring.projections[name], self._living.units[name]
        parts = {"units": units}
        if name in self._living.synapses:
            features = self._living.features(self.wiring, projection.feeds, projection.features)
            parts["synapses"] = self._living.synapses[name] & units[:, None] & features.to(units.device)
        if name in self._living.timesteps:
            parts["timesteps"] = self._living.timesteps[name] & units
        return parts

    def _impose(self) -> None:
        """Silence the dead."""
        self._silence.impose(self._living)
        for name, alive in self._living.timesteps.items():
            projection = self.wiring.projections[name]
            neuron = self._neuron(projection)
            if neuron is None or neuron.time_axis is None:
                continue
            of_site = torch.ones(alive.shape[0], neuron.features, dtype=torch.bool, device=alive.device)
            fed = neuron.feeds[name]
            known = (fed >= 0).nonzero().flatten().to(alive.device)
            of_site[:, known] = alive[:, fed[fed >= 0].to(alive.device)]
            module = self.model.get_submodule(neuron.site.module)
            silence_timesteps(module, of_site, neuron.time_axis, neuron.axis)

    def _compact_if_worth_it(self) -> CompactReport | None:
        kept = what_remains(self.wiring, self._living.removable(self.wiring))
        now = left = 0
        for name, projection in self.wiring.projections.items():
            units = len(kept.units.get(name, range(projection.units)))
            features = len(kept.features.get(name, range(projection.features)))
            now += projection.weights
            left += units * features * projection.taps
        if now - left <= self.config.compact_share * now or self._refused:
            return None
        try:
            return self.compact()
        except CompactionError as error:
            self._refused = True
            warnings.warn(f"the dead stay in the network as zeros: {error}", stacklevel=3)
            return None

    def _renumber(self, kept: Kept) -> None:
        """Let everything that counts units and features follow a removal."""
        self.wiring.keep(kept.units, kept.features)
        for name, kept_units in kept.units.items():
            self._origin[name] = self._origin[name][kept_units]
        for name, memory in self._memories.items():
            device = memory.spines.device
            units, features = (
                part[name].to(device) if name in part else None for part in (kept.units, kept.features)
            )
            memory.keep(units, features)
            self._vitality[name].keep(units, features)
            if units is not None:
                self._living.units[name] = self._living.units[name][units]
                if name in self._living.timesteps:
                    self._living.timesteps[name] = self._living.timesteps[name][:, units]
            if name in self._living.synapses:
                synapses = self._living.synapses[name]
                synapses = synapses if units is None else synapses[units]
                self._living.synapses[name] = synapses if features is None else synapses[:, features]
        self._impose()

    def _layer_reports(self, before: dict[str, int]) -> list[LayerReport]:
        reports = []
        for name, (weights_alive, _) in self._living.weights(self.wiring).items():
            projection = self.wiring.projections[name]
            units = self._living.units.get(name)
            alive = projection.units if units is None else int(units.sum())
            times = self._living.timesteps.get(name)
            reports.append(
                LayerReport(
                    name=name,
                    kind=projection.kind.name,
                    units=self._units_born[name],
                    alive=alive,
                    died=before.get(name, alive) - alive,
                    weights=self._born[name],
                    weights_alive=weights_alive,
                    timesteps_alive=1.0
                    if times is None or units is None
                    else float(times[:, units].float().mean()),
                )
            )
        return reports


def _as_optimizers(optimizer: Optimizer | Sequence[Optimizer] | None) -> tuple[Optimizer, ...]:
    if optimizer is None:
        return ()
    optimizers = (optimizer,) if isinstance(optimizer, Optimizer) else tuple(optimizer)
    for one in optimizers:
        if not isinstance(one, Optimizer):
            raise TypeError(
                f"optimizer expects a torch.optim.Optimizer, or several; got {type(one).__name__}"
            )
    return optimizers


def _of_units(activity: Tensor, projection: Projection, neuron: NeuronSite | None) -> Tensor:
    """The activity of a projection's own units, where its neurons carry others' units too."""
    if neuron is None:
        return activity
    fed = neuron.feeds[projection.name]
    if len(fed) == projection.units and bool((fed == torch.arange(projection.units)).all()):
        return activity
    place = torch.zeros(projection.units, dtype=torch.int64)
    known = (fed >= 0).nonzero().flatten()
    place[fed[known]] = known
    return activity[:, :, place.to(activity.device)]
