"""One network's life: what lives in it, what is remembered of its activity, and how it ages by an epoch."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpap.anatomy import NeuronSite, Projection, Wiring
from dpap.anatomy.projections import incoming, weight_of
from dpap.anatomy.recording import Recording
from dpap.budget import TOLERANCE, Critical, after_deaths, dead_timesteps, scheduled_share, solve
from dpap.config import PruningConfig
from dpap.plasticity import CRITERIA, Criterion, Evidence, Memory
from dpap.surgery import Living
from dpap.surgery.slicing import Kept
from dpap.vitality import Vitality, constants, critical_shift, grown, importances

ROUNDS = 8
"""How often two targets that depend on each other are solved for in turn, at most."""


class Life:
    """Everything that can die in a network.

    Args:
        wiring: of the network.
        config: what dies, and by which criterion.

    Attributes:
        living: who is alive.
        memories: what each projection whose units may die remembers of its activity.
        vitality: survival of each.
        observed: projections whose activity was observed in this epoch.
        floors: units of each projection, as it was born, that survive whatever their importance.
    """

    def __init__(self, wiring: Wiring, config: PruningConfig) -> None:
        self.wiring = wiring
        self.config = config
        self.criterion = CRITERIA[config.criterion]
        self.living = Living.at_birth(
            wiring, synapses=config.prunes_synapses, timesteps=config.prunes_timesteps
        )
        self.memories = {name: self._blank_memory(name) for name in self.living.units}
        self.vitality = {
            name: Vitality.at_birth(wiring.projections[name].kind.name, memory, config)
            for name, memory in self.memories.items()
        }
        self.observed: set[str] = set()
        self.floors = {name: config.floor(len(alive)) for name, alive in self.living.units.items()}

    def observe(self, recording: Recording) -> None:
        """Remember the activity of one presentation."""
        for name, memory in self.memories.items():
            projection = self.wiring.projections[name]
            pre = recording.inputs.get(name)
            post = recording.outputs.get(projection.neuron) if projection.neuron is not None else None
            if pre is None or post is None or pre.shape[1] != post.shape[1]:
                continue
            post = _of_units(post, projection, self.wiring.neuron_of(projection))
            pre, post = pre.to(memory.units.dtype), post.to(memory.units.dtype)
            if len(pre) == 1:
                pre = pre.expand(len(post), -1, -1)
            if projection.groups == 1:
                self.criterion.observe(memory, pre, post, self.config.trace_decay)
            else:
                _observe_groups(self.criterion, memory, pre, post, self.config.trace_decay)
            self.observed.add(name)

    @property
    def judged(self) -> set[str]:
        """Projections of which something may die at the end of this epoch."""
        by_activity = self.criterion.observes or self.config.prunes_timesteps
        return self.observed if by_activity else set(self.memories)

    def age(self, epoch: int, due: float | None, share: Callable[[Living], float]) -> dict[str, float]:
        """Move survival by one epoch, and let die what it says.

        Args:
            epoch: epochs learned before this one.
            due: share that should be pruned after it, or None where survival alone decides.
            share: the share that counts, of who lives.

        Returns:
            The decay value used, by kind.
        """
        config = self.config
        judged = self.judged
        importance = {
            name: importances(self._evidence(name, epoch), config, self._alive_parts(name))
            for name in self.memories
            if name in judged
        }
        vitality = {name: self.vitality[name] for name in importance}
        whole, times = Critical(round_to=config.round_to), Critical()
        for name, vital in vitality.items():
            for part, survival in vital.parts():
                decay = constants(config, vital.kind if part == "units" else part)
                critical = critical_shift(survival, importance[name][part], decay, epoch, config)
                critical.masked_fill_(~getattr(self.living, part)[name], math.inf)
                getattr(times if part == "timesteps" else whole, part)[name] = critical
        survivals = {name: vital.units for name, vital in vitality.items()}
        shift, time_shift = 0.0, 0.0
        if due is not None:
            whole.break_ties(epoch)
        if config.timestep_target is not None:
            times.break_ties(epoch)
        times.spare_strongest(self.living, survivals, self.floors)
        whole.spare_strongest(self.living, survivals, self.floors)
        whole.spare_paths(self.wiring, self.living)
        exact = config.end_epoch is not None and epoch + 1 >= config.end_epoch
        if due is not None:
            shift, living = solve(self.living, whole, share, due, exact=exact)
            met = share(living)
        else:
            living = after_deaths(self.living, whole, 0.0)
        if config.timestep_target is not None and config.end_epoch is not None:
            # last, for the share is one of the neurons that are left
            goal = scheduled_share(config.timestep_target, epoch + 1, config.start_epoch, config.end_epoch)
            time_shift, living = solve(living, times, dead_timesteps, goal, exact=exact)
            if due is not None and abs(share(living) - met) > TOLERANCE:
                # silent timesteps count in this share: less of the others has to die, and what dies with them matters
                aim = goal
                for _ in range(ROUNDS):
                    time_shift, silenced = solve(self.living, times, dead_timesteps, aim, exact=exact)
                    shift, living = solve(silenced, whole, share, due, exact=exact)
                    if abs(dead_timesteps(living) - goal) <= TOLERANCE:
                        break
                    aim = min(max(aim + goal - dead_timesteps(living), 0.0), 1.0)
        elif config.prunes_timesteps:
            living = after_deaths(living, times, 0.0)
        self.living = living
        for name, vital in vitality.items():
            for part, survival in list(vital.parts()):
                decay = constants(config, vital.kind if part == "units" else part)
                by = time_shift if part == "timesteps" else shift
                if math.isfinite(by):
                    moved = grown(survival, importance[name][part], decay, by, epoch, config)
                    # the spared start the next epoch at the edge of death, not below it
                    setattr(vital, part, moved.clamp(min=0))
        used = {"conv": config.conv, "neuron": config.neuron, "synapse": config.synapse}
        epsilon = {kind: decay.epsilon + shift for kind, decay in used.items()}
        if config.prunes_timesteps:
            epsilon["timestep"] = config.timestep.epsilon + time_shift
        return {kind: value for kind, value in epsilon.items() if math.isfinite(value)}

    def begin_epoch(self) -> None:
        """Prepare the memories for another epoch."""
        for memory in self.memories.values():
            self.criterion.begin_epoch(memory)
        self.observed.clear()

    def keep(self, kept: Kept) -> None:
        """Forget what was removed."""
        for name, memory in self.memories.items():
            device = memory.units.device
            units, features = (
                part[name].to(device) if name in part else None for part in (kept.units, kept.features)
            )
            memory.keep(units, features)
            self.vitality[name].keep(units, features)
            self.living.keep(name, units, features)

    def state_dict(self) -> dict[str, Any]:
        """Copies of everything, as plain tensors and numbers."""
        return {
            "living": {kind: dict(alive) for kind, alive in self.living.copy().tensors()},
            "memories": {name: memory.state_dict() for name, memory in self.memories.items()},
            "vitality": {
                name: {part: value.clone() for part, value in vitality.parts()}
                for name, vitality in self.vitality.items()
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave, for a network of the same structure."""
        for name, memory in self.memories.items():
            memory.load_state_dict(state["memories"][name])
            for part, value in state["vitality"][name].items():
                setattr(self.vitality[name], part, value.to(memory.units.device, copy=True))
        for kind, alive in self.living.tensors():
            for name, current in alive.items():
                alive[name] = state["living"][kind][name].to(current.device, copy=True)

    def _blank_memory(self, name: str) -> Memory:
        projection = self.wiring.projections[name]
        synapses = name in self.living.synapses
        weight = weight_of(projection.module)
        timesteps = self.living.timesteps.get(name)
        return self.criterion.blank(
            projection.units,
            projection.features if synapses else 1,
            synapses=synapses,
            timesteps=None if timesteps is None else timesteps.shape[0],
            dtype=torch.float64 if weight.dtype == torch.float64 else torch.float32,
            device=weight.device,
        )

    def _evidence(self, name: str, epoch: int) -> Evidence:
        weight = partial(incoming, self.wiring.projections[name].module)
        return Evidence(self.memories[name], weight, name, epoch, self.config.seed)

    def _alive_parts(self, name: str) -> dict[str, Tensor]:
        """What of a projection lives and can be compared: dead features take their synapses along."""
        projection, units = self.wiring.projections[name], self.living.units[name]
        parts = {"units": units}
        if name in self.living.synapses:
            features = self.living.features(projection)
            parts["synapses"] = self.living.synapses[name] & units[:, None] & features.to(units.device)
        if name in self.living.timesteps:
            parts["timesteps"] = self.living.timesteps[name] & units
        return parts


def _of_units(activity: Tensor, projection: Projection, neuron: NeuronSite | None) -> Tensor:
    """The activity of a projection's own units, summed over the features that each of them feeds."""
    if neuron is None:
        return activity
    fed = neuron.feeds[projection.name]
    if len(fed) == projection.units and bool((fed == torch.arange(projection.units)).all()):
        return activity
    features = torch.argsort(fed, stable=True)[int((fed < 0).sum()) :]
    units = fed[features]
    counts = torch.bincount(units, minlength=projection.units)
    # a table of each unit's features, filled up with one that is always silent: adding by index has no fixed order
    table = torch.full((projection.units, int(counts.max())), len(fed))
    table[units, torch.arange(len(units)) - (counts.cumsum(0) - counts)[units]] = features
    precision = torch.promote_types(activity.dtype, torch.float32)
    return nn.functional.pad(activity, (0, 1))[:, :, table.to(activity.device)].sum(3, dtype=precision)


def _observe_groups(
    criterion: Criterion,
    memory: Memory,
    pre: Float[Tensor, "time batch group"],
    post: Float[Tensor, "time batch unit"],
    decay: float,
) -> None:
    """Add what was presented to a memory where every group of units hears its own group of features only."""
    parts = memory.parts(pre.shape[2])
    for part, heard, its in zip(parts, pre.split(1, 2), post.chunk(len(parts), 2), strict=True):
        criterion.observe(part, heard, its, decay)
    memory.rejoin(parts)
