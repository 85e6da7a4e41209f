"""The costs of which a target can be a share: weights, parameters, MACs, latency, synaptic operations, energy.

The pruned share of each is a function of the masks, and does not fall when more dies (but for grouped convolutions and
round widths, where what can be removed depends on what else is). Parameters, MACs and latency leave with whole units
that can be removed; weights, operations and energy are saved by every silent synapse.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from jaxtyping import Bool, Float64
from torch import Tensor, nn

from dpap.anatomy import WeightLayer, Wiring
from dpap.anatomy.layers import bias_of, matrices_of
from dpap.anatomy.observing.operations import OperationCounts
from dpap.anatomy.ownership import tensor_of
from dpap.anatomy.wiring import Reader
from dpap.pruning.budget import dead_weights
from dpap.pruning.layer_times import LayerTime
from dpap.pruning.state_form import check_form, check_operations
from dpap.surgery import Masks
from dpap.surgery.compact import what_remains
from dpap.surgery.silence import unit_parts
from dpap.surgery.slicing import Kept

PICOJOULES_MAC = 4.6
"""One 32-bit float multiply (3.7) and add (0.9) in 45 nm: M. Horowitz, ISSCC 2014,
doi 10.1109/ISSCC.2014.6757323."""

PICOJOULES_AC = 0.9
"""One 32-bit float add in 45 nm, from the same source."""

OBSERVED = ("synaptic_operations", "energy")
"""Costs that are counted from activity."""

MEASURED = "latency"
"""The cost that is measured on the machine that prunes."""


def adding_is_cheaper(operations: float, additions: float | None) -> bool:
    """Whether so many additions take less energy than so many operations that multiply and add."""
    return additions is not None and PICOJOULES_AC * additions <= PICOJOULES_MAC * operations


@dataclass
class ActivityCounts:
    """Operations that the features of one weight layer cause at each unit that reads them, per sample.

    Of a feature with dead sources: as last counted while they were alive.

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

    def update(
        self, counts: OperationCounts, samples: int, active_share: Float64[Tensor, " feature"]
    ) -> None:
        """Take over new counts; of dead features (active share 0) the earlier ones stay."""
        alive = active_share > 0
        for name in ("operations", "magnitude"):
            now = getattr(counts, name).cpu() / samples / active_share.clamp(min=1e-12)
            setattr(self, name, torch.where(alive, now, getattr(self, name)))
        self.step = counts.step

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
        graded = not math.isnan(self.step) and self.step > 0
        if graded and adding_is_cheaper(operations, magnitude / self.step):
            each = PICOJOULES_AC / self.step
            return self.magnitude * each, self.gone_magnitude * each
        return self.operations * PICOJOULES_MAC, self.gone_operations * PICOJOULES_MAC


@dataclass
class CostLedger:
    """What the pruned share of every cost is counted from.

    Attributes:
        model: the network.
        wiring: of it.
        round_to: what removal rounds widths to.
        weights, parameters, macs, units: of the dense network; weights that can die, and units, by layer.
        activity: operations by layer, once activity was observed.
        times: of each layer of the dense network, where latency was measured.
    """

    model: nn.Module
    wiring: Wiring
    round_to: int
    weights: dict[str, int]
    parameters: int
    macs: int
    units: dict[str, int]
    activity: dict[str, ActivityCounts] = field(default_factory=dict)
    times: dict[str, LayerTime] = field(default_factory=dict)

    @classmethod
    def of_dense(cls, model: nn.Module, wiring: Wiring, masks: Masks, round_to: int) -> "CostLedger":
        """Of a network in which no unit is pruned."""
        return cls(
            model,
            wiring,
            round_to,
            {name: weights for name, (_, weights) in masks.weights(wiring).items()},
            _parameter_count(model),
            wiring.macs(),
            {name: layer.units for name, layer in wiring.layers.items()},
        )

    def share(self, cost: str, masks: Masks) -> float:
        """Pruned share of a cost."""
        return COSTS[cost](self, masks)

    def reachable(
        self, cost: str, masks: Masks, floors: Mapping[str, int], as_they_are: Collection[str] = ()
    ) -> float:
        """The largest share that can be pruned: each layer has its least number of units left, spread evenly.

        In layers with synapses that die each of these units keeps one synapse.

        Args:
            cost: of which.
            masks: what is alive.
            floors: least number of units, by layer.
            as_they_are: layers of which nothing more dies.
        """
        units, synapses = {}, {}
        for name, alive in masks.units.items():
            if name in as_they_are:
                units[name] = alive
                continue
            count = min(floors[name], len(alive))
            units[name] = torch.zeros_like(alive)
            units[name][torch.arange(count) * len(alive) // max(count, 1)] = True
        for name, alive in masks.synapses.items():
            if name in as_they_are:
                synapses[name] = alive
                continue
            synapses[name] = torch.zeros_like(alive)
            synapses[name][:, 0] = True
        return self.share(cost, Masks(units, synapses, masks.timesteps))

    def update(self, counts: dict[str, OperationCounts], samples: int, masks: Masks) -> None:
        """Take over what was counted on so many samples, with these masks."""
        for name, counted in counts.items():
            active_share = _active_share(masks, self.wiring.layers[name])
            if name not in self.activity:
                nothing = torch.zeros(len(active_share), dtype=torch.float64)
                self.activity[name] = ActivityCounts(nothing, nothing, counted.step)
            self.activity[name].update(counted, samples, active_share)

    def price(self, cost: str, layer: WeightLayer) -> Float64[Tensor, " feature"]:
        """What each feature of a layer costs for every unit that reads it."""
        each = torch.full((layer.features,), float(layer.taps), dtype=torch.float64)
        if cost in ("macs", MEASURED):
            return each * layer.positions * (1.0 if cost == "macs" else self.times[layer.name].per_mac)
        counts = self.activity.get(layer.name)
        if cost in OBSERVED:
            if counts is None:
                return torch.zeros_like(each)
            return (counts.operations if cost == "synaptic_operations" else counts.energy()[0]).clone()
        return each

    def keep(self, kept: Kept) -> None:
        """Drop what was removed."""
        for name, activity in self.activity.items():
            if name in kept.features:
                activity.keep(kept.features[name])

    def dense_state(self) -> dict[str, dict[str, Any]]:
        """What the dense network had, besides units, and its times where they were measured, as plain numbers."""
        return {"dense": self._counts(), "times": self._times()}

    def take_dense(
        self, state: Mapping[str, Any], units: Mapping[str, int], weights: Mapping[str, int]
    ) -> None:
        """Count shares of another dense network, of which this one is what was left; `state` has what `dense_state`
        gave, of another machine maybe.

        Raises:
            ValueError: where it has something else.
        """
        if "dense" in state:
            dense = state["dense"]
            check_form(dense, self._counts(), "dense")
            self.parameters, self.macs = dense["parameters"], dense["macs"]
            self.units, self.weights = dict(units), dict(weights)
        if self.times and state.get("times"):
            check_form(state["times"], self._times(), "times")
            self.times = {name: LayerTime(**state["times"][name]) for name in self.times}

    def _counts(self) -> dict[str, int]:
        return {"weights": sum(self.weights.values()), "parameters": self.parameters, "macs": self.macs}

    def _times(self) -> dict[str, dict[str, Any]]:
        return {name: asdict(one) for name, one in self.times.items()}

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Copies of the operations, as plain tensors and numbers."""
        return {
            name: {
                key: value.clone() if isinstance(value, Tensor) else value
                for key, value in vars(activity).items()
            }
            for name, activity in self.activity.items()
        }

    def load_state_dict(self, state: dict[str, dict[str, Any]]) -> None:
        """Take over what `state_dict` gave, for a network of the same structure.

        Raises:
            ValueError: where it is of another network.
        """
        features = {name: layer.features for name, layer in self.wiring.layers.items()}
        check_operations(state, features, {each.name for each in fields(ActivityCounts)}, "activity")
        self.activity = {}
        for name, values in state.items():
            tensors = {
                key: value.to("cpu", copy=True) for key, value in values.items() if isinstance(value, Tensor)
            }
            self.activity[name] = ActivityCounts(**{**values, **tensors})


def _weights(ledger: CostLedger, masks: Masks) -> float:
    """Share of the weights that can die."""
    return dead_weights(ledger.wiring, masks, ledger.weights)


def _parameters(ledger: CostLedger, masks: Masks) -> float:
    """Share of all parameters of the dense network: what leaves it when the dead are removed."""
    left = _parameter_count(ledger.model) - _removed_parameters(ledger.wiring, _remaining(ledger, masks))
    return 1 - left / ledger.parameters


def _macs(ledger: CostLedger, masks: Masks) -> float:
    """Share of the MACs (multiplications of one inference, zeros included) that is saved when the dead are removed.

    Those of depthwise convolutions and of attention are not counted.
    """
    kept = _remaining(ledger, masks, ledger.wiring.layers.values())
    return 1 - ledger.wiring.macs(kept.units, kept.features) / ledger.macs


def _latency(ledger: CostLedger, masks: Masks) -> float:
    """Share of the time of the weight layers of one inference that is saved when the dead are removed, as it was
    measured before any died.
    """
    kept = _remaining(ledger, masks, ledger.wiring.layers.values())
    left = ledger.wiring.layer_macs(kept.units, kept.features)
    whole = sum(one.seconds for one in ledger.times.values())
    saved = sum(one.per_mac * (one.macs - left[name]) for name, one in ledger.times.items())
    return saved / whole if whole else 0.0


def _synaptic_operations(ledger: CostLedger, masks: Masks) -> float:
    """Share of the operations that spikes (or other activity that is not zero) cause at weights.

    They are those of training forwards. A feature counts as last observed while it was alive, with the weights that
    read it in the dense network: the whole is what the network would do unpruned. Depthwise convolutions are not
    counted, nor is what the death of some does to the activity of others before it was observed.
    """
    each = {name: (counts.operations, counts.gone_operations) for name, counts in ledger.activity.items()}
    return _saved_share(ledger, masks, each)


def _energy(ledger: CostLedger, masks: Masks) -> float:
    """Share of the energy of the same operations: additions where spikes or counts of spikes arrive, else
    multiplications and additions.
    """
    return _saved_share(ledger, masks, {name: counts.energy() for name, counts in ledger.activity.items()})


COSTS: dict[str, Callable[[CostLedger, Masks], float]] = {
    "weights": _weights,
    "parameters": _parameters,
    "macs": _macs,
    MEASURED: _latency,
    "synaptic_operations": _synaptic_operations,
    "energy": _energy,
}


def _parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _remaining(ledger: CostLedger, masks: Masks, readers: Iterable[Reader] | None = None) -> Kept:
    return what_remains(ledger.wiring, masks.removable(ledger.wiring, ledger.round_to), readers)


def _removed_parameters(wiring: Wiring, kept: Kept) -> int:
    """Parameters that leave when units and features do."""
    leaving = 0
    for name, layer in wiring.layers.items():
        units, features = (
            count if part.get(name) is None else len(part[name])
            for count, part in ((layer.units, kept.units), (layer.features, kept.features))
        )
        if (units, features) != (layer.units, layer.features):
            leaving += layer.weights - layer.weights_between(units, features)
            biases = [bias_of(matrix) for matrix, _ in matrices_of(layer.module)]
            each = sum(len(bias) // layer.units for bias in biases if bias is not None)
            leaving += each * (layer.units - units)
            leaving += _further_parameters(layer, units, features)
    for name, attachment in wiring.attachments.items():
        if name in kept.features:
            gone = attachment.features - len(kept.features[name])
            for tensor, _ in unit_parts(attachment):
                if isinstance(tensor, nn.Parameter):
                    leaving += tensor.numel() // attachment.features * gone
    return leaving


def _further_parameters(layer: WeightLayer, units: int, features: int) -> int:
    """Parameters besides weight and bias that leave when so many units and features stay."""
    leaving = 0
    for name, belonging in layer.further.items():
        tensor = tensor_of(layer.module, name)
        if isinstance(tensor, nn.Parameter):
            left = tensor.numel()
            if belonging.unit is not None:
                left = left // layer.units * units
            if belonging.feature is not None:
                left = left // layer.features * features
            leaving += tensor.numel() - left
    return leaving


def _saved_share(ledger: CostLedger, masks: Masks, each: dict[str, tuple[Tensor, float]]) -> float:
    """Share of the whole that the dead save.

    Args:
        ledger: of the network.
        masks: what is alive.
        each: layer -> what each of its features costs for every unit that reads it; and those that were
            removed, together.
    """
    useful = masks.useful(ledger.wiring)
    whole = left = 0.0
    for name, (costs, gone) in each.items():
        layer = ledger.wiring.layers[name]
        whole += (float(costs.sum()) + gone) * ledger.units[name] / layer.groups
        reading = reading_units(masks, layer, useful[name])
        left += float((costs * _active_share(masks, layer) * reading).sum())
    return 1 - left / whole if whole else 0.0


def reading_units(masks: Masks, layer: WeightLayer, units: Bool[Tensor, "_"]) -> Float64[Tensor, " feature"]:
    """How many alive units read each feature."""
    if layer.fixed:
        units = torch.ones_like(units)
    synapses = masks.synapses.get(layer.name)
    if synapses is not None:
        # a product in single precision is faster than a sum of booleans, and as exact up to 2^24 units
        return (units.to(synapses.device, torch.float32) @ synapses.float()).cpu().double()
    groups = layer.groups
    return units.view(groups, -1).sum(1).double().repeat_interleave(layer.features // groups)


def _active_share(masks: Masks, layer: WeightLayer) -> Float64[Tensor, " feature"]:
    """Share of each feature's activity that its sources may still send: 0 of the dead, below 1 where some timesteps
    are silent.
    """
    total = torch.zeros(layer.features, dtype=torch.float64)
    sources = torch.zeros_like(total)
    for source, unit in layer.feeds.items():
        known, times = unit >= 0, masks.timesteps.get(source)
        total[known] += 1.0 if times is None else times.double().mean(0).cpu()[unit[known]]
        sources[known] += 1
    share = torch.where(sources > 0, total / sources.clamp(min=1), 1.0)
    return share * masks.features(layer)
