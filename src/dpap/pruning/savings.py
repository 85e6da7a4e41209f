"""What the death of each unit and synapse would save by itself, in the cost that a target is a share of.

A weight layer has a price for each feature that one unit reads: the weights in between, their MACs, the operations that
the feature causes. A unit saves what it reads and what reads it, synapses that died before included: only its own death
removes what is stored for them. Units that are joined, as in a residual stream, can only be removed together: they are
one group, which saves what all of them do.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from dpap.anatomy import WeightLayer, Wiring
from dpap.anatomy.joined import unit_labels
from dpap.anatomy.observing.gather import FeatureSums
from dpap.pruning.costs import CostLedger, reading_units
from dpap.surgery import Masks


@dataclass
class Savings:
    """What deaths save.

    Attributes:
        units: of each layer whose units may die, what each of them saves with the group that it is in.
        synapses: of each layer whose synapses may die, what the death of one saves, by feature.
    """

    units: dict[str, Float64[Tensor, " unit"]]
    synapses: dict[str, Float64[Tensor, " feature"]]


def savings(
    ledger: CostLedger, cost: str, masks: Masks, groups: dict[str, Int64[Tensor, " unit"]]
) -> Savings:
    """Of everything that is alive.

    Args:
        ledger: of the network.
        cost: that counts.
        masks: what is alive.
        groups: number of the group that each unit is in, by layer.
    """
    wiring = ledger.wiring
    prices = {name: ledger.price(cost, layer) for name, layer in wiring.layers.items()}
    stored = Masks(masks.units, {}, masks.timesteps)
    by_layer = {name: _read_by(stored, layer, prices[name]) for name, layer in wiring.layers.items()}
    for reader in wiring.layers.values():
        arriving = prices[reader.name] * reading_units(stored, reader, _alive(masks, reader))
        sources = torch.zeros_like(arriving)
        for unit in reader.feeds.values():
            sources += unit >= 0
        shared = arriving / sources.clamp(min=1)
        for source, unit in reader.feeds.items():
            if source in by_layer:
                by_layer[source] += FeatureSums(unit, wiring.layers[source].units)(shared)
    total = torch.zeros(1 + max((int(group.max()) for group in groups.values()), default=0)).double()
    for name, group in groups.items():
        alive = _alive(masks, wiring.layers[name])
        total.index_add_(0, group, by_layer[name] * alive)
    units = {name: total[group] for name, group in groups.items()}
    return Savings(units, {name: prices[name] for name in masks.synapses})


def unit_groups(wiring: Wiring) -> dict[str, Int64[Tensor, " unit"]]:
    """Layer whose units may die -> number of the group that each unit is in: units that feed a feature together, or
    are connected by such features, leave together or not at all.
    """
    labels = unit_labels(wiring)
    return {name: labels[name] for name, layer in wiring.layers.items() if layer.can_die}


def _alive(masks: Masks, layer: WeightLayer) -> Bool[Tensor, " unit"]:
    alive = masks.units.get(layer.name)
    return torch.ones(layer.units, dtype=torch.bool) if alive is None else alive.cpu()


def _read_by(
    masks: Masks, layer: WeightLayer, price: Float64[Tensor, " feature"]
) -> Float64[Tensor, " unit"]:
    """What each unit reads, at a layer's prices."""
    worth = price * masks.features(layer)
    by_group = worth.view(layer.groups, -1).sum(1)
    return by_group.repeat_interleave(layer.units // layer.groups)
