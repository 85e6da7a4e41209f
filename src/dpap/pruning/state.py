"""What is alive in a network, the statistics of its activity, and how an epoch updates both."""

import math
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dpap.anatomy import NeuronSite, WeightLayer, Wiring
from dpap.anatomy.layers import incoming, weight_of
from dpap.anatomy.observing.gather import FeatureSums
from dpap.anatomy.observing.recording import Recording
from dpap.plasticity import CRITERIA, Contribution, Criterion, LayerContext, Statistics
from dpap.pruning.bad_batches import BadBatches
from dpap.pruning.budget import (
    TOLERANCE,
    CriticalShifts,
    after_deaths,
    dead_timesteps,
    solve,
)
from dpap.pruning.config import PruningConfig
from dpap.pruning.costs import CostLedger
from dpap.pruning.distributed import Ranks
from dpap.pruning.layer_survival import (
    LayerSurvival,
    constants,
    critical_shift,
    updated_survival,
)
from dpap.pruning.ranking import Parts, importances, over_network, within_layers
from dpap.pruning.savings import savings, unit_groups
from dpap.pruning.schedule import scheduled_share
from dpap.pruning.shared_statistics import SharedStatistics
from dpap.pruning.state_form import check_dict, check_form
from dpap.surgery import Masks
from dpap.surgery.slicing import Kept

NAMED = 6
"""So many layers are named in a warning."""
ROUNDS = 8
"""At most so often are two targets that depend on each other solved for in turn."""


class NotFinite(ValueError):
    """Weights, or what was observed, have overflowed, so that nothing can be compared."""


class PruningState:
    """Everything that can die in a network.

    Args:
        wiring: of the network.
        config: what dies, and by which criterion.
        ranks: that train it together.

    Attributes:
        masks: what is alive.
        statistics: of the activity of every weight layer whose units may die.
        survival: of each of these layers.
        observed: layers of which something was observed since the last update.
        anything_observed: whether anything was since the end of the last epoch.
        bad_batches: what was left out because it was not finite.
        floors: units of each layer that survive whatever their importance, by its initial size.
    """

    def __init__(self, wiring: Wiring, config: PruningConfig, ranks: Ranks | None = None) -> None:
        self.wiring = wiring
        self.config = config
        self.ranks = ranks or Ranks()
        self.masks = Masks.all_alive(
            wiring, synapses=config.prunes_synapses, timesteps=config.prunes_timesteps
        )
        self.statistics = {name: self._blank_statistics(name) for name in self.masks.units}
        self.shared = SharedStatistics(self.ranks, self.criterion, self.statistics)
        self.survival = {
            name: LayerSurvival.initial(wiring.layers[name].kind.name, statistics, config)
            for name, statistics in self.statistics.items()
        }
        self.observed: set[str] = set()
        self.bad_batches = BadBatches()
        self.anything_observed = False
        self.floors = {name: config.floor(len(alive)) for name, alive in self.masks.units.items()}
        self._groups: dict[str, Tensor] | None = None
        self._left_out: set[str] = set()

    @property
    def criterion(self) -> Criterion:
        """How importance is judged; looked up, for a state may have come from another process."""
        return CRITERIA[self.config.criterion]

    def observe(self, recording: Recording) -> bool:
        """Add the activity of one presentation to the statistics; returns whether all of it was finite.

        A layer in which it was not is left as it was.
        """
        before, finite = {}, {}
        for name, statistics in self.statistics.items():
            layer = self.wiring.layers[name]
            pre = recording.inputs.get(name)
            post = recording.outputs.get(layer.neuron) if layer.neuron is not None else None
            if pre is None or post is None or pre.shape[1] != post.shape[1]:
                continue
            post = _of_units(post, layer, self.wiring.neuron_of(layer))
            pre, post = pre.to(statistics.units.dtype), post.to(statistics.units.dtype)
            if len(pre) == 1:
                pre = pre.expand(len(post), -1, -1)
            before[name] = statistics.copy()
            if layer.groups == 1:
                self.criterion.observe(statistics, pre, post, self.config.trace_decay)
            else:
                _observe_groups(self.criterion, statistics, pre, post, self.config.trace_decay)
            # finite values may overflow in a sum, and a criterion may swallow what is not finite
            finite[name] = statistics.finite() & pre.isfinite().all() & post.isfinite().all()
        return self._accept(before, self.shared.agree(before, _flags(finite)))

    def observe_contributions(self, contributions: dict[str, Contribution]) -> bool:
        """Add what each layer contributed to the loss of one step to the statistics; returns as `observe` does."""
        before, finite = {}, {}
        for name, statistics in self.statistics.items():
            if name in contributions:
                before[name] = statistics.copy()
                self.criterion.observe_contribution(statistics, contributions[name])
                statistics.batches += 1
                finite[name] = statistics.finite()
                for part in vars(contributions[name]).values():
                    finite[name] = finite[name] if part is None else finite[name] & part.isfinite().all()
        return self._accept(before, _flags(finite))

    def _accept(self, before: dict[str, Statistics], finite: dict[str, bool]) -> bool:
        """Put back the statistics of layers in which something was not finite, on this rank or another."""
        if not finite:
            return True
        good = [name for name, each in finite.items() if each]
        bad = [name for name, each in finite.items() if not each]
        for name in before.keys() & bad:
            self.statistics[name] = before[name]
        self.observed.update(good)
        self.anything_observed |= bool(good)
        self.bad_batches.note(good, bad)
        return not bad

    @property
    def updatable(self) -> set[str]:
        """Weight layers of which something may die now."""
        if not self.observes:
            return set(self.statistics)
        if self.config.memory:
            return {name for name, statistics in self.statistics.items() if statistics.batches}
        return set(self.observed)

    @property
    def observes(self) -> bool:
        """Whether importance depends on what was observed."""
        return self.observes_activity or self.criterion.observes_gradients

    @property
    def observes_activity(self) -> bool:
        """Whether importance depends on activity."""
        times = self.config.prunes_timesteps and self.criterion.observes_timesteps
        return self.criterion.observes or times

    def update(self, epoch: int, progress: float, ledger: CostLedger) -> dict[str, float]:
        """Update survival once, and mask what falls below zero.

        Args:
            epoch: epochs trained before this one.
            progress: epochs trained when this is called, with the part of one that has passed.
            ledger: counts what is due.

        Returns:
            The decay value used, by kind.
        """
        config = self.config
        due = self._due_of_observed(config.due(progress), ledger)
        share = partial(ledger.share, config.target_of)
        importance = self._importances(epoch, ledger)
        layer_survivals = {name: self.survival[name] for name in importance}
        whole, times = CriticalShifts(round_to=config.round_to), CriticalShifts()
        for name, layer_survival in layer_survivals.items():
            for part, survival in layer_survival.parts():
                decay = constants(config, layer_survival.kind if part == "units" else part)
                critical = critical_shift(survival, importance[name][part], decay, epoch, config)
                critical.masked_fill_(~getattr(self.masks, part)[name], math.inf)
                getattr(times if part == "timesteps" else whole, part)[name] = critical
        survivals = {name: layer_survival.units for name, layer_survival in layer_survivals.items()}
        shift, time_shift = 0.0, 0.0
        if due is not None:
            whole.break_ties(epoch)
        if config.timestep_target is not None:
            times.break_ties(epoch)
        if config.scope == "network":
            whole.join(self._unit_groups(), self.masks)
            whole.equalise(self.wiring.levels(), self.masks)
        times.spare_strongest(self.masks, survivals, self.floors)
        whole.spare_strongest(self.masks, survivals, self.floors)
        whole.spare_paths(self.wiring, self.masks)
        exact = config.end_epoch is not None and progress >= config.end_epoch
        if due is not None:
            shift, masks = solve(self.masks, whole, share, due, exact=exact)
            met = share(masks)
        else:
            masks = after_deaths(self.masks, whole, 0.0)
        if config.timestep_target is not None and config.end_epoch is not None:
            # last, for the share is one of the neurons that are left
            goal = scheduled_share(config.timestep_target, progress, config.start_epoch, config.end_epoch)
            time_shift, masks = solve(masks, times, dead_timesteps, goal, exact=exact)
            if due is not None and abs(share(masks) - met) > TOLERANCE:
                # silent timesteps count in this share: less of the others has to die, and what dies with them matters
                aim = goal
                for _ in range(ROUNDS):
                    time_shift, silenced = solve(self.masks, times, dead_timesteps, aim, exact=exact)
                    shift, masks = solve(silenced, whole, share, due, exact=exact)
                    if abs(dead_timesteps(masks) - goal) <= TOLERANCE:
                        break
                    aim = min(max(aim + goal - dead_timesteps(masks), 0.0), 1.0)
        elif config.prunes_timesteps:
            masks = after_deaths(masks, times, 0.0)
        self.masks = masks
        for name, layer_survival in layer_survivals.items():
            for part, survival in list(layer_survival.parts()):
                decay = constants(config, layer_survival.kind if part == "units" else part)
                by = time_shift if part == "timesteps" else shift
                if math.isfinite(by):
                    moved = updated_survival(survival, importance[name][part], decay, by, epoch, config)
                    # the spared start the next epoch at the edge of death, not below it
                    setattr(layer_survival, part, moved.clamp(min=0))
        used = {"conv": config.conv, "neuron": config.neuron, "synapse": config.synapse}
        epsilon = {kind: decay.epsilon + shift for kind, decay in used.items()}
        if config.prunes_timesteps:
            epsilon["timestep"] = config.timestep.epsilon + time_shift
        return {kind: value for kind, value in epsilon.items() if math.isfinite(value)}

    def _due_of_observed(self, due: float | None, ledger: CostLedger) -> float | None:
        """What is due, less the part of it that falls to layers of which nothing was observed, with a warning.

        Of those nothing can be judged; were the rest to make up for them, it would be cut to its floors.
        """
        left_out = [name for name in self.statistics if name not in self.updatable]
        if due is None or not left_out:
            return due
        cost = self.config.target_of
        most = ledger.reachable(cost, self.masks, self.floors)
        rest = ledger.reachable(cost, self.masks, self.floors, left_out)
        if not self._left_out >= set(left_out):
            self._left_out.update(left_out)
            names = ", ".join(left_out[:NAMED]) + (" and others" if len(left_out) > NAMED else "")
            warnings.warn(
                f"nothing of {names} was observed so far: frozen, stepped by no optimizer that was given, or not in "
                "use. What was not observed does not die, and of all others that part which is due of the whole: of "
                f"the {cost.replace('_', ' ')} at most {rest:.1%}, instead of {most:.1%}, can be pruned",
                stacklevel=6,
            )
        return due * rest / most if most > 0 else due

    def begin_interval(self) -> None:
        """Prepare the statistics for what comes after an update."""
        for name in self.observed:
            self.criterion.begin_interval(self.statistics[name], self.config.memory)
        self.observed.clear()
        self.shared.begin()

    def share(self) -> None:
        """Add up what all ranks observed since the last update."""
        if not self.ranks.many:
            return
        flags = [*(name in self.observed for name in self.statistics), self.anything_observed]
        *observed, self.anything_observed = self.shared.reduce(flags)
        self.observed = {name for name, each in zip(self.statistics, observed, strict=True) if each}

    def keep(self, kept: Kept) -> None:
        """Drop what was removed."""
        for name, statistics in self.statistics.items():
            device = statistics.units.device
            units, features = (
                part[name].to(device) if name in part else None for part in (kept.units, kept.features)
            )
            statistics.keep(units, features)
            self.shared.keep(name, units, features)
            self.survival[name].keep(units, features)
            self.masks.keep(name, units, features)
        self._groups = None

    def give_up(self, name: str) -> None:
        """Let nothing of a layer die any more; all of it counts as alive."""
        for _, alive in self.masks.tensors():
            alive.pop(name, None)
        for of_layers in (self.statistics, self.survival, self.floors):
            of_layers.pop(name, None)
        self.shared.give_up(name)
        self.observed.discard(name)
        self._groups = None

    def state_dict(self) -> dict[str, Any]:
        """Copies of everything, as plain tensors and numbers."""
        return {
            "masks": {kind: dict(alive) for kind, alive in self.masks.copy().tensors()},
            "statistics": {name: self.shared.of_all(name).state_dict() for name in self.statistics},
            "survival": {
                name: {part: value.clone() for part, value in layer_survival.parts()}
                for name, layer_survival in self.survival.items()
            },
            "observed": sorted(self.observed),
            "anything_observed": self.anything_observed,
            "bad_batches": self.bad_batches.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], dense_units: Mapping[str, int]) -> None:
        """Take over what `state_dict` gave, for a network of the same structure; `dense_units`: before any left.

        Raises:
            ValueError: where it is of another network.
        """
        for part in ("statistics", "survival", "masks"):
            check_dict(state[part], part)
        for name in [name for name in self.statistics if name not in state["statistics"]]:
            self.give_up(name)
        own = self.state_dict()
        check_form(state, {part: own[part] for part in ("survival", "masks")}, "it")
        for part in ("observed", "anything_observed"):
            check_form(state.get(part, own[part]), own[part], part)
        counts = dict.fromkeys(self.masks.units, 0)
        check_form(state.get("alive_before", counts), counts, "alive_before")
        self.floors = {name: self.config.floor(dense_units[name]) for name in self.masks.units}
        self.observed = self.statistics.keys() & state.get("observed", ())
        self.anything_observed = state.get("anything_observed", False)
        self._groups = None
        if "bad_batches" in state:
            self.bad_batches.load_state_dict(state["bad_batches"])
        for name, statistics in self.statistics.items():
            statistics.load_state_dict(state["statistics"][name])
            for part, _ in self.survival[name].parts():
                value = state["survival"][name][part]
                setattr(self.survival[name], part, value.to(statistics.units.device, copy=True))
        self.shared.divide()
        for kind, alive in self.masks.tensors():
            for name, current in alive.items():
                alive[name] = state["masks"][kind][name].to(current.device, copy=True)

    def _importances(self, epoch: int, ledger: CostLedger) -> Parts:
        """Importance of everything alive in the layers of which something may die now, from 0 to 1."""
        config, updatable = self.config, self.updatable
        names = [name for name in self.statistics if name in updatable]
        alive = {name: self._alive_parts(name) for name in names}
        found = importances({name: self._context(name, epoch) for name in names}, alive, config.criterion)
        for name, parts in found.items():
            for part, value in parts.items():
                if not value[alive[name][part]].isfinite().all():
                    raise NotFinite(
                        f"importance must be finite; that of {name}'s {part} is not, at batch {self.bad_batches.batch} "
                        f"of this epoch{self.bad_batches.first(name)}: its weights or sums have overflowed; go back to "
                        "an earlier checkpoint, or lower the learning rate"
                    )
        if config.scope == "layer":
            return within_layers(found, alive, config)
        saved = savings(ledger, config.target_of, self.masks, self._unit_groups())
        return over_network(found, alive, saved)

    def _unit_groups(self) -> dict[str, Tensor]:
        if self._groups is None:
            self._groups = unit_groups(self.wiring)
        return self._groups

    def _blank_statistics(self, name: str) -> Statistics:
        layer = self.wiring.layers[name]
        synapses = name in self.masks.synapses
        weight = weight_of(layer.module)
        timesteps = self.masks.timesteps.get(name)
        return self.criterion.blank(
            layer.units,
            layer.features if synapses else 1,
            synapses=synapses,
            timesteps=None if timesteps is None else timesteps.shape[0],
            dtype=torch.float64 if weight.dtype == torch.float64 else torch.float32,
            device=weight.device,
        )

    def _context(self, name: str, epoch: int) -> LayerContext:
        weight = partial(incoming, self.wiring.layers[name].module)
        return LayerContext(self.statistics[name], weight, name, epoch, self.config.seed)

    def _alive_parts(self, name: str) -> dict[str, Tensor]:
        """What of a weight layer is alive and can be compared: a dead feature takes its synapses along."""
        layer, units = self.wiring.layers[name], self.masks.units[name]
        parts = {"units": units}
        if name in self.masks.synapses:
            features = self.masks.features(layer)
            parts["synapses"] = self.masks.synapses[name] & units[:, None] & features.to(units.device)
        if name in self.masks.timesteps:
            parts["timesteps"] = self.masks.timesteps[name] & units
        return parts


def _flags(finite: dict[str, Tensor]) -> dict[str, bool]:
    """Truth values of a device, waited for together."""
    if not finite:
        return {}
    return dict(zip(finite, torch.stack([each.cpu() for each in finite.values()]).tolist(), strict=True))


def _of_units(activity: Tensor, layer: WeightLayer, neuron: NeuronSite | None) -> Tensor:
    """The activity of a weight layer's own units, summed over the features that each of them feeds."""
    return activity if neuron is None else FeatureSums(neuron.feeds[layer.name], layer.units)(activity)


def _observe_groups(
    criterion: Criterion,
    statistics: Statistics,
    pre: Float[Tensor, "time batch group"],
    post: Float[Tensor, "time batch unit"],
    decay: float,
) -> None:
    """Add a presentation to the statistics of a grouped convolution: each group of units reads its own features."""
    parts = statistics.parts(pre.shape[2])
    for part, group_pre, group_post in zip(parts, pre.split(1, 2), post.chunk(len(parts), 2), strict=True):
        criterion.observe(part, group_pre, group_post, decay)
    statistics.rejoin(parts)
