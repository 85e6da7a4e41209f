"""The currencies in which a target can be set: what share of the weights, parameters, multiplications, synaptic
operations or energy of the whole network its dead have taken away.

Each is a function of who lives, and none falls when more die (but for grouped convolutions and round widths, where
who leaves depends on who else does). Parameters and multiplications leave with whole units that can be removed;
weights, operations and energy are saved by every silent synapse.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float64
from torch import Tensor, nn

from dpap.anatomy import Projection, Wiring
from dpap.anatomy.arrivals import Arrivals
from dpap.budget import dead_weights
from dpap.surgery import Living
from dpap.surgery.compact import what_remains
from dpap.surgery.silence import unit_parts
from dpap.surgery.slicing import Kept

PICOJOULES_MAC = 4.6
"""One 32-bit float multiply (3.7) and add (0.9) in 45 nm: M. Horowitz, ISSCC 2014,
doi 10.1109/ISSCC.2014.6757323."""

PICOJOULES_AC = 0.9
"""One 32-bit float add in 45 nm, from the same source."""

OBSERVED = ("synaptic_operations", "energy")
"""Currencies that are counted from activity."""


def adding_is_cheaper(operations: float, additions: float | None) -> bool:
    """Whether so many additions take less energy than so many operations that multiply and add."""
    return additions is not None and PICOJOULES_AC * additions <= PICOJOULES_MAC * operations


@dataclass
class Traffic:
    """What one projection's features send to each unit that reads them, per sample, as last seen while they lived.

    Attributes:
        operations: of each feature, with all timesteps of its source alive.
        magnitude: the same, each counted by the size of the value.
        step: of which all values are whole multiples; nan where they are analogue.
        gone_operations, gone_magnitude: sums over the features that were removed.
    """

    operations: Float64[Tensor, " feature"]
    magnitude: Float64[Tensor, " feature"]
    step: float
    gone_operations: float = 0.0
    gone_magnitude: float = 0.0

    def see(self, arrived: Arrivals, samples: int, awake: Float64[Tensor, " feature"]) -> None:
        """Take over what arrived; of features that are dead (0 awake) what was seen before stays."""
        living = awake > 0
        for name in ("operations", "magnitude"):
            now = getattr(arrived, name).cpu() / samples / awake.clamp(min=1e-12)
            setattr(self, name, torch.where(living, now, getattr(self, name)))
        self.step = arrived.step

    def keep(self, features: Tensor) -> None:
        """Drop all but the given features."""
        gone = torch.ones(len(self.operations), dtype=torch.bool)
        gone[features] = False
        self.gone_operations += float(self.operations[gone].sum())
        self.gone_magnitude += float(self.magnitude[gone].sum())
        self.operations, self.magnitude = self.operations[features], self.magnitude[features]

    def energy(self) -> tuple[Float64[Tensor, " feature"], float]:
        """Picojoules of each feature and unit, and of the features that were removed."""
        operations = float(self.operations.sum()) + self.gone_operations
        magnitude = float(self.magnitude.sum()) + self.gone_magnitude
        counts = not math.isnan(self.step) and self.step > 0
        if counts and adding_is_cheaper(operations, magnitude / self.step):
            each = PICOJOULES_AC / self.step
            return self.magnitude * each, self.gone_magnitude * each
        return self.operations * PICOJOULES_MAC, self.gone_operations * PICOJOULES_MAC


@dataclass
class Books:
    """What the shares of every currency are counted from.

    Attributes:
        model: the network.
        wiring: of it.
        round_to: what removal rounds widths to.
        weights, parameters, macs, units: at birth; weights that can die, and units by projection.
        traffic: by projection, once activity was observed.
    """

    model: nn.Module
    wiring: Wiring
    round_to: int
    weights: int
    parameters: int
    macs: int
    units: dict[str, int]
    traffic: dict[str, Traffic] = field(default_factory=dict)

    @classmethod
    def at_birth(cls, model: nn.Module, wiring: Wiring, living: Living, round_to: int) -> "Books":
        """Of a network in which nobody is dead."""
        return cls(
            model,
            wiring,
            round_to,
            sum(weights for _, weights in living.weights(wiring).values()),
            _parameters_of(model),
            wiring.macs(),
            {name: projection.units for name, projection in wiring.projections.items()},
        )

    def share(self, currency: str, living: Living) -> float:
        """Share of the whole that the dead have taken away, in a currency."""
        return CURRENCIES[currency](self, living)

    def most(self, currency: str, living: Living, floors: Mapping[str, int]) -> float:
        """A share that cannot be passed: that of a network with the least units of every layer, spread evenly.

        Of projections whose synapses die each of these units keeps one synapse.
        """
        units, synapses = {}, {}
        for name, alive in living.units.items():
            count = min(floors[name], len(alive))
            units[name] = torch.zeros_like(alive)
            units[name][torch.arange(count) * len(alive) // max(count, 1)] = True
        for name, alive in living.synapses.items():
            synapses[name] = torch.zeros_like(alive)
            synapses[name][:, 0] = True
        return self.share(currency, Living(units, synapses, living.timesteps))

    def see(self, arrived: dict[str, Arrivals], samples: int, living: Living) -> None:
        """Take over what was counted on so many samples while so many lived."""
        for name, seen in arrived.items():
            awake = _awake(living, self.wiring.projections[name])
            if name not in self.traffic:
                nothing = torch.zeros(len(awake), dtype=torch.float64)
                self.traffic[name] = Traffic(nothing, nothing, seen.step)
            self.traffic[name].see(seen, samples, awake)

    def keep(self, kept: Kept) -> None:
        """Forget what was removed."""
        for name, traffic in self.traffic.items():
            if name in kept.features:
                traffic.keep(kept.features[name])

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Copies of the traffic, as plain tensors and numbers."""
        return {
            name: {
                key: value.clone() if isinstance(value, Tensor) else value
                for key, value in vars(traffic).items()
            }
            for name, traffic in self.traffic.items()
        }

    def load_state_dict(self, state: dict[str, dict[str, Any]]) -> None:
        """Take over what `state_dict` gave, for a network of the same structure."""
        self.traffic = {}
        for name, values in state.items():
            tensors = {key: value.cpu() for key, value in values.items() if isinstance(value, Tensor)}
            self.traffic[name] = Traffic(**{**values, **tensors})


def _weights(books: Books, living: Living) -> float:
    """Share of the weights that can die."""
    return dead_weights(books.wiring, living, books.weights)


def _parameters(books: Books, living: Living) -> float:
    """Share of all parameters that the network had at birth: what leaves it when the dead are removed."""
    left = _parameters_of(books.model) - _leaving(books.wiring, _remaining(books, living))
    return 1 - left / books.parameters


def _macs(books: Books, living: Living) -> float:
    """Share of the multiplications of one inference, zeros included, that are left out when the dead are removed.

    Those of depthwise convolutions and of attention are not counted.
    """
    kept = _remaining(books, living)
    return 1 - books.wiring.macs(kept.units, kept.features) / books.macs


def _synaptic_operations(books: Books, living: Living) -> float:
    """Share of the operations that spikes (or other activity that is not zero) cause at weights.

    They are those of training forwards. A feature counts as it was last seen while it lived, with the weights that
    read it at birth: the whole is what the network would do with nobody dead. Depthwise convolutions are not
    counted, nor is what the death of some does to the activity of others before it was observed.
    """
    each = {name: (seen.operations, seen.gone_operations) for name, seen in books.traffic.items()}
    return _saved(books, living, each)


def _energy(books: Books, living: Living) -> float:
    """Share of the energy of the same operations: additions where spikes or counts of spikes arrive, else
    multiplications and additions.
    """
    return _saved(books, living, {name: seen.energy() for name, seen in books.traffic.items()})


CURRENCIES: dict[str, Callable[[Books, Living], float]] = {
    "weights": _weights,
    "parameters": _parameters,
    "macs": _macs,
    "synaptic_operations": _synaptic_operations,
    "energy": _energy,
}


def _parameters_of(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _remaining(books: Books, living: Living) -> Kept:
    return what_remains(books.wiring, living.removable(books.wiring, books.round_to))


def _leaving(wiring: Wiring, kept: Kept) -> int:
    """Parameters that leave when units and features do."""
    leaving = 0
    for name, projection in wiring.projections.items():
        units, features = (
            count if part.get(name) is None else len(part[name])
            for count, part in ((projection.units, kept.units), (projection.features, kept.features))
        )
        if (units, features) != (projection.units, projection.features):
            leaving += projection.weights - projection.weights_between(units, features)
            bias = getattr(projection.module, "bias", None)
            leaving += 0 if bias is None else projection.units - units
    for name, attachment in wiring.attachments.items():
        if name in kept.features:
            gone = attachment.features - len(kept.features[name])
            for tensor, _ in unit_parts(attachment):
                if isinstance(tensor, nn.Parameter):
                    leaving += tensor.numel() // attachment.features * gone
    return leaving


def _saved(books: Books, living: Living, each: dict[str, tuple[Tensor, float]]) -> float:
    """Share of the whole traffic that the dead save.

    Args:
        books: of the network.
        living: who lives.
        each: projection -> what each of its features costs for every unit that reads it; and those that were
            removed, together.
    """
    useful = living.useful(books.wiring)
    whole = left = 0.0
    for name, (costs, gone) in each.items():
        projection = books.wiring.projections[name]
        whole += (float(costs.sum()) + gone) * books.units[name] / projection.groups
        reading = _reading(living, projection, useful[name])
        left += float((costs * _awake(living, projection) * reading).sum())
    return 1 - left / whole if whole else 0.0


def _reading(living: Living, projection: Projection, units: Bool[Tensor, "_"]) -> Float64[Tensor, " feature"]:
    """How many living units read each feature."""
    if projection.fixed:
        units = torch.ones_like(units)
    synapses = living.synapses.get(projection.name)
    if synapses is not None:
        # a product in single precision is faster than a sum of truths, and as exact up to 2^24 units
        return (units.to(synapses.device, torch.float32) @ synapses.float()).cpu().double()
    groups = projection.groups
    return units.view(groups, -1).sum(1).double().repeat_interleave(projection.features // groups)


def _awake(living: Living, projection: Projection) -> Float64[Tensor, " feature"]:
    """Share of each feature's activity that its sources may still send: 0 of the dead, less than 1 where some of
    the timesteps are silent.
    """
    total = torch.zeros(projection.features, dtype=torch.float64)
    sources = torch.zeros_like(total)
    for source, unit in projection.feeds.items():
        known, times = unit >= 0, living.timesteps.get(source)
        total[known] += 1.0 if times is None else times.double().mean(0).cpu()[unit[known]]
        sources[known] += 1
    share = torch.where(sources > 0, total / sources.clamp(min=1), 1.0)
    return share * living.features(projection)
