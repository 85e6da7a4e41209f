"""How much must die this epoch: one shift of all decay values, solved for, so that a target is met.

Which units die stays the survival function's choice, across layers: each has a critical shift above which it
dies, and the budget only chooses the shift.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from dpap.anatomy import Wiring
from dpap.surgery import Living

TOLERANCE = 0.002
"""A target counts as met within this share; a fifth of the percentage point that is promised."""


def scheduled_share(target: float, step: int, start: int, end: int) -> float:
    """Share that should be dead after `step` epochs: steep at first, then level, the whole target at `end`.

    The cubic of Zhu & Gupta (arXiv 1710.01878, equation 1), whose shape is that of the paper's Fig. 3f.
    """
    if step <= start:
        return 0.0
    progress = min((step - start) / (end - start), 1.0)
    return target * (1 - (1 - progress) ** 3)


@dataclass
class Critical:
    """The shift above which each part dies, by projection; infinite for the dead and the spared."""

    units: dict[str, Float[Tensor, "_"]] = field(default_factory=dict)
    synapses: dict[str, Float[Tensor, "_ _"]] = field(default_factory=dict)
    timesteps: dict[str, Float[Tensor, "_ _"]] = field(default_factory=dict)

    def break_ties(self, seed: int) -> None:
        """Set equals apart by up to 1e-4 of their distance from zero, so that some of them can die and others not.

        Synapses from silent features, say, all tie; what dies among them is spread over the layer by the seed.
        """
        generator = torch.Generator().manual_seed(seed)
        for kind in (self.units, self.synapses, self.timesteps):
            for name in sorted(kind):
                value = kind[name]
                apart = torch.rand(value.shape, generator=generator).to(value) * 1e-4
                kind[name] = value + apart * (1 + value.abs())

    def spare_strongest(self, living: Living, survival: dict[str, Tensor], count: int) -> None:
        """Spare the `count` strongest units of every projection with their strongest synapse, and of every unit
        its strongest timestep.

        The strongest are those that die last; between equals the larger survival, then the smaller index, decides.
        """
        for name, critical in self.units.items():
            alive = living.units[name]
            order = sorted(
                alive.nonzero().flatten().tolist(),
                key=lambda unit: (-float(critical[unit]), -float(survival[name][unit]), unit),
            )
            strongest = torch.tensor(order[:count], dtype=torch.int64, device=critical.device)
            critical[strongest] = math.inf
            if name in self.synapses:
                best = self.synapses[name].masked_fill(~living.synapses[name], -math.inf)[strongest].argmax(1)
                self.synapses[name][strongest, best] = math.inf
        for name, critical in self.timesteps.items():
            best = critical.masked_fill(~living.timesteps[name], -math.inf).argmax(0)
            critical[best, torch.arange(critical.shape[1], device=critical.device)] = math.inf


def after_deaths(living: Living, critical: Critical, shift: float) -> Living:
    """Who lives once everything with a critical shift below `shift` has died.

    A unit whose last synapse dies is dead with it.
    """
    units = {name: alive.clone() for name, alive in living.units.items()}
    synapses, timesteps = dict(living.synapses), dict(living.timesteps)
    for name, value in critical.units.items():
        units[name] &= value >= shift
    for name, value in critical.synapses.items():
        synapses[name] = synapses[name] & (value >= shift)
        units[name] &= synapses[name].any(1)
    for name, value in critical.timesteps.items():
        timesteps[name] = timesteps[name] & (value >= shift)
    return Living(units, synapses, timesteps)


def dead_weights(wiring: Wiring, living: Living, born: int) -> float:
    """Share of the prunable weights that is dead, of `born` at the start of learning."""
    return 1 - sum(alive for alive, _ in living.weights(wiring).values()) / born


def dead_timesteps(living: Living) -> float:
    """Share of the living neurons' timesteps that is dead."""
    total = dead = 0
    for name, alive in living.timesteps.items():
        kept = alive[:, living.units[name]]
        total += kept.numel()
        dead += int((~kept).sum())
    return dead / total if total else 0.0


def solve(
    living: Living,
    critical: Critical,
    share: Callable[[Living], float],
    goal: float,
    *,
    exact: bool,
) -> tuple[float, Living]:
    """Find the shift of the decay values at which the share of the dead comes to a goal.

    The share grows with the shift, in steps: where one death would overshoot, the last shift before it is taken.

    Args:
        living: who lives now.
        critical: the shift above which each dies; changed where something is spared.
        share: the share of the dead that counts.
        goal: what it should come to.
        exact: meet the goal as nearly as possible: units too big for what is left to die are spared, and smaller
            parts die in their stead.

    Returns:
        The shift, and who lives after it; -inf and the same living where the goal is met already.
    """
    if share(living) >= goal:
        return -math.inf, living
    best: tuple[float, Living] = (-math.inf, living)
    while True:
        low, high = _bracket(living, critical, share, goal)
        for shift in (low, high):
            candidate = after_deaths(living, critical, shift)
            if abs(share(candidate) - goal) < abs(share(best[1]) - goal) and (exact or shift == low):
                best = (shift, candidate)
        if not exact or abs(share(best[1]) - goal) <= TOLERANCE or not _spare_between(critical, low, high):
            return best


def _bracket(
    living: Living, critical: Critical, share: Callable[[Living], float], goal: float
) -> tuple[float, float]:
    """The largest shift found that does not overshoot, and the smallest that does."""
    finite = [
        value[torch.isfinite(value)]
        for kind in (critical.units, critical.synapses, critical.timesteps)
        for value in kind.values()
    ]
    finite = [value for value in finite if value.numel()]
    if not finite:
        return -math.inf, math.inf
    low = min(float(value.min()) for value in finite)
    high = max(float(value.max()) for value in finite) + 1
    if share(after_deaths(living, critical, high)) <= goal:
        return high, high
    # critical shifts are single precision: halving down to their spacing separates any two of them
    while high - low > max(abs(low), abs(high)) * torch.finfo(torch.float32).eps:
        middle = (low + high) / 2
        if share(after_deaths(living, critical, middle)) <= goal:
            low = middle
        else:
            high = middle
    return low, high


def _spare_between(critical: Critical, low: float, high: float) -> bool:
    """Spare the units that die between two shifts; whether there were any."""
    found = False
    for value in critical.units.values():
        between = (value >= low) & (value < high)
        if between.any():
            value[between] = math.inf
            found = True
    return found
