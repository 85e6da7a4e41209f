"""How a target (of weights, MACs, ...: `costs`) is met: one shift of all decay values, so that as much dies as is due.

The survival function decides which units die, across layers: each has a critical shift above which it dies, and the
budget only chooses the shift. No layer dies whole (layer collapse): its strongest units are spared
(`spare_strongest`), and a path to them (`spare_paths`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from dpap.anatomy import Wiring
from dpap.surgery import Masks

TOLERANCE = 0.002
"""A target counts as met within this share; a fifth of the percentage point that is promised."""

NEAR = TOLERANCE / 10
"""The search for a shift ends within this share below the goal, however many synapses lie between."""


@dataclass
class CriticalShifts:
    """The shift above which each part dies, by weight layer; infinite for the dead and the spared.

    Attributes:
        units: of units.
        synapses: of single synapses.
        timesteps: of neuron-timesteps.
        round_to: as many units of a layer die as leave a multiple of it alive; the best of the others are
            spared with them.
        groups: layer -> group of each of its units, of which all die together; see `join`.
        equals: number of a set of layers of which equally many units die -> their alive units by layer.
    """

    units: dict[str, Float[Tensor, "_"]] = field(default_factory=dict)
    synapses: dict[str, Float[Tensor, "_ _"]] = field(default_factory=dict)
    timesteps: dict[str, Float[Tensor, "_ _"]] = field(default_factory=dict)
    round_to: int = 1
    groups: dict[str, Int64[Tensor, "_"]] = field(default_factory=dict)
    equals: dict[int, dict[str, Int64[Tensor, "_"]]] = field(default_factory=dict)

    def equalise(self, levels: Sequence[Sequence[str]], masks: Masks) -> None:
        """Let equally many units of some layers die, the weakest of each.

        Args:
            levels: sets of such layers, each as wide as the others.
            masks: what is alive.
        """
        self.equals = {
            number: {name: masks.units[name].nonzero().flatten() for name in names}
            for number, names in enumerate(levels)
            if all(name in self.units for name in names)
        }
        self.level()

    def join(self, groups: Mapping[str, Int64[Tensor, "_"]], masks: Masks) -> None:
        """Let units of a group die together, when the last of them would.

        Args:
            groups: layer -> number of the group that each of its units is in.
            masks: what is alive; the dead are in no group any more.
        """
        known = {name: group for name, group in groups.items() if name in self.units}
        if not known:
            return
        no_group = 1 + max(int(group.max()) for group in known.values())
        known = {name: group.where(masks.units[name].cpu(), no_group) for name, group in known.items()}
        shared = torch.cat(list(known.values())).bincount(minlength=no_group + 1) > 1
        shared[no_group] = False
        self.groups = {name: group for name, group in known.items() if bool(shared[group].any())}
        self.level()

    def level(self) -> None:
        """Give all units of a group the shift of the one that dies last, and so the r-th strongest of equal layers."""
        for together in self.equals.values():
            orders = {
                name: alive[self.units[name][alive].argsort(descending=True, stable=True)]
                for name, alive in together.items()
            }
            least = min(len(order) for order in orders.values())
            ranked = [self.units[name][order[:least]].cpu() for name, order in orders.items()]
            strongest = torch.stack(ranked).amax(0)
            for name, order in orders.items():
                self.units[name][order[:least]] = strongest.to(self.units[name])
        if not self.groups:
            return
        last = torch.full((1 + max(int(group.max()) for group in self.groups.values()),), -math.inf)
        for name, group in self.groups.items():
            last.scatter_reduce_(0, group, self.units[name].cpu().to(last.dtype), "amax")
        for name, group in self.groups.items():
            self.units[name] = last[group].to(self.units[name])

    def break_ties(self, seed: int) -> None:
        """Separate equals by up to 1e-4 of their distance from zero, so that some of them can die and others not.

        Synapses from silent features, for example, all tie; what dies among them is spread over the layer by the seed.
        """
        generator = torch.Generator().manual_seed(seed)
        for kind in (self.units, self.synapses, self.timesteps):
            for name in sorted(kind):
                value = kind[name]
                apart = torch.rand(value.shape, generator=generator).to(value) * 1e-4
                kind[name] = value + apart * (1 + value.abs())

    def spare_strongest(self, masks: Masks, survival: dict[str, Tensor], counts: Mapping[str, int]) -> None:
        """Spare the strongest units of every layer, as many as `counts` says, with their strongest synapse,
        and of every unit its strongest timestep.

        The strongest are those that die last; between equals the larger survival, then the smaller index, decides.
        """
        for name, critical in self.units.items():
            alive = masks.units[name].nonzero().flatten()
            # sorts that keep the order of equals, the last reason first
            order = alive[survival[name][alive].argsort(descending=True, stable=True)]
            order = order[critical[order].argsort(descending=True, stable=True)]
            self.spare(name, order[: counts[name]], masks)
        self.level()
        for name, critical in self.timesteps.items():
            best = critical.masked_fill(~masks.timesteps[name], -math.inf).argmax(0)
            critical[best, torch.arange(critical.shape[1], device=critical.device)] = math.inf

    def spare_paths(self, wiring: Wiring, masks: Masks) -> None:
        """Spare the strongest synapse of every spared unit that comes from a spared one, so that no layer reads only
        the dead however much dies.
        """
        spared = Masks({name: alive.clone() for name, alive in masks.units.items()}, {}, {})
        for name, critical in self.units.items():
            spared.units[name] &= critical == math.inf
        for name, critical in self.synapses.items():
            units = spared.units[name].nonzero().flatten()
            receiving = masks.synapses[name][units] & spared.features(wiring.layers[name]).to(critical.device)
            units, receiving = units[receiving.any(1)], receiving[receiving.any(1)]
            strongest = critical[units].masked_fill(~receiving, -math.inf).argmax(1)
            critical[units, strongest] = math.inf

    def spare(self, name: str, units: Int64[Tensor, "_"], masks: Masks) -> None:
        """Let units of a layer survive any shift, with their strongest synapse."""
        self.units[name][units] = math.inf
        if name in self.synapses:
            synapses = self.synapses[name][units].masked_fill(~masks.synapses[name][units], -math.inf)
            self.synapses[name][units, synapses.argmax(1)] = math.inf


def after_deaths(masks: Masks, critical: CriticalShifts, shift: float) -> Masks:
    """The masks once everything with a critical shift below `shift` has died.

    A unit dies with its last synapse; one that is spared for the sake of a round width keeps its strongest.
    """
    units = {name: alive.clone() for name, alive in masks.units.items()}
    synapses, timesteps = dict(masks.synapses), dict(masks.timesteps)
    for name, value in critical.synapses.items():
        synapses[name] = synapses[name] & (value >= shift)
    for name, value in critical.units.items():
        alive = units[name] & (value >= shift)
        if name in critical.synapses:
            alive &= synapses[name].any(1)
        units[name] = alive
        if critical.round_to == 1:
            continue
        spared = _spared(name, masks, critical, alive)
        if len(spared) and name in critical.synapses:
            among = critical.synapses[name][spared].masked_fill(~masks.synapses[name][spared], -math.inf)
            synapses[name][spared, among.argmax(1)] = True
        alive[spared] = True
    for name, value in critical.timesteps.items():
        timesteps[name] = timesteps[name] & (value >= shift)
    return Masks(units, synapses, timesteps)


def _spared(
    name: str, masks: Masks, critical: CriticalShifts, alive: Bool[Tensor, "_"]
) -> Int64[Tensor, "_"]:
    """Which of the dying must stay for the width to be round: those that would have died last."""
    width, before = int(alive.sum()), masks.units[name]
    missing = min(-width % critical.round_to, int(before.sum()) - width)
    dying = (before & ~alive).nonzero().flatten()
    if missing == 0:
        return dying[:0]
    last = critical.units[name][dying]
    if name in critical.synapses:
        synapses = critical.synapses[name][dying].masked_fill(~masks.synapses[name][dying], -math.inf)
        last = torch.minimum(last, synapses.amax(1))
    return dying[last.argsort(descending=True, stable=True)[:missing]]


def dead_weights(wiring: Wiring, masks: Masks, dense: Mapping[str, int]) -> float:
    """Share of the prunable weights that is dead, of those that the layers of the dense network had.

    A layer of which nothing may die any more is not counted, like those of which nothing ever could.
    """
    alive = {name: count for name, count in masks.alive_weights(wiring).items() if name in dense}
    initial = sum(dense[name] for name in alive)
    return 1 - sum(alive.values()) / initial if initial else 0.0


def dead_timesteps(masks: Masks) -> float:
    """Share of the alive neurons' timesteps that is dead."""
    total = dead = 0
    for name, alive in masks.timesteps.items():
        kept = alive[:, masks.units[name]]
        total += kept.numel()
        dead += int((~kept).sum())
    return dead / total if total else 0.0


def solve(
    masks: Masks,
    critical: CriticalShifts,
    share: Callable[[Masks], float],
    goal: float,
    *,
    exact: bool,
) -> tuple[float, Masks]:
    """Find the shift of the decay values at which the share of the dead comes to a goal.

    The share grows with the shift, in steps: where one death would overshoot, the last shift before it is taken.

    Args:
        masks: what is alive now.
        critical: the shift above which each dies; changed where something is spared.
        share: the share of the dead that counts.
        goal: what it should come to.
        exact: meet the goal as nearly as possible: units too big for what is left to die are spared, and smaller
            parts die instead.

    Returns:
        The shift, and the masks after it; -inf and the same masks where the goal is met already.
    """
    low, best, reached = -math.inf, (-math.inf, masks), share(masks)
    if reached >= goal:
        return best
    while True:
        low, high = _bracket(masks, critical, share, goal, low)
        for shift in (low, high) if exact else (low,):
            candidate = after_deaths(masks, critical, shift)
            dead = share(candidate)
            if abs(dead - goal) < abs(reached - goal):
                best, reached = (shift, candidate), dead
        if not exact or abs(reached - goal) <= TOLERANCE:
            return best
        if not _spare_between(masks, critical, low, high):
            return best


def _bracket(
    masks: Masks, critical: CriticalShifts, share: Callable[[Masks], float], goal: float, low: float
) -> tuple[float, float]:
    """The largest shift from `low` on that does not overshoot, and the next at which anything dies; near the goal,
    one that is near enough, twice.
    """
    finite = [
        value[torch.isfinite(value) & (value >= low)]
        for kind in (critical.units, critical.synapses, critical.timesteps)
        for value in kind.values()
    ]
    between = torch.cat(finite) if finite else torch.empty(0)
    if not len(between):
        return low, low
    high = float(between.max()) + 1
    if share(after_deaths(masks, critical, high)) <= goal:
        return high, high
    between = between[between > low]
    while len(between):
        middle = float(between.median())
        dead = share(after_deaths(masks, critical, middle))
        if dead <= goal:
            low, between = middle, between[between > middle]
            if goal - dead <= NEAR:
                return low, low
        else:
            high, between = middle, between[between < middle]
    return low, high


def _spare_between(masks: Masks, critical: CriticalShifts, low: float, high: float) -> bool:
    """Spare the units that die between two shifts, where widths are round all of their layer; whether any do."""
    before, after = (after_deaths(masks, critical, shift).units for shift in (low, high))
    found = False
    for name in critical.units:
        dying = before[name] & ~after[name]
        if dying.any():
            spared = dying if critical.round_to == 1 else before[name]
            critical.spare(name, spared.nonzero().flatten(), masks)
            found = True
    critical.level()
    return found
