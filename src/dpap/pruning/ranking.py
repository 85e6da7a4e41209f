"""Importances made comparable, within a layer or over the whole network, as (9) takes them: from 0 to 1."""

from collections.abc import Mapping
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dpap.plasticity import CRITERIA, LayerContext
from dpap.plasticity.survival import normalise, ranked
from dpap.pruning.config import PruningConfig
from dpap.pruning.savings import Savings

Parts = dict[str, dict[str, Float[Tensor, "..."]]]
"""Layer -> part ("units", "synapses", "timesteps") -> a value each."""

LEAST = 1e-30
"""Importances are compared by their logarithms; below this they are equal."""


def importances(
    contexts: Mapping[str, LayerContext], alive: Mapping[str, dict[str, Bool[Tensor, "..."]]], criterion: str
) -> Parts:
    """What the criterion says of each part, as it says it."""
    rule = CRITERIA[criterion]
    measure = {
        "units": rule.unit_importance,
        "synapses": rule.synapse_importance,
        "timesteps": rule.timestep_importance,
    }
    return {
        name: {part: measure[part](context) for part in alive[name]} for name, context in contexts.items()
    }


def within_layers(
    found: Parts, alive: Mapping[str, dict[str, Bool[Tensor, "..."]]], config: PruningConfig
) -> Parts:
    """Mapped to [0, 1] within each layer, as the paper does."""
    criterion = CRITERIA[config.criterion]
    mapped = ranked if config.normalisation == "rank" else partial(normalise, quantile=config.clip)
    return {
        name: {part: criterion.normalise(value, alive[name][part], mapped) for part, value in parts.items()}
        for name, parts in found.items()
    }


def over_network(
    found: Parts,
    alive: Mapping[str, dict[str, Bool[Tensor, "..."]]],
    saved: Savings,
) -> Parts:
    """Ranked from 0 to 1 over all layers by importance for what a death saves; units and synapses in one ranking,
    timesteps in their own.
    """
    worth: Parts = {}
    for name, parts in found.items():
        worth[name] = {}
        for part, value in parts.items():
            logarithm = value.double().clamp(min=LEAST).log()
            if part == "units":
                logarithm -= saved.units[name].to(value.device).clamp(min=LEAST).log()
            elif part == "synapses":
                logarithm -= saved.synapses[name].to(value.device).clamp(min=LEAST).log()
            worth[name][part] = logarithm
    result: Parts = {name: {} for name in found}
    for kinds in (("units", "synapses"), ("timesteps",)):
        places = [(name, part) for name in worth for part in worth[name] if part in kinds]
        if not places:
            continue
        values = torch.cat([worth[name][part].flatten().cpu() for name, part in places])
        masks = torch.cat([alive[name][part].flatten().cpu() for name, part in places])
        places_of = ranked(values, masks)
        for (name, part), rank in zip(
            places, places_of.split([worth[name][part].numel() for name, part in places]), strict=True
        ):
            like = found[name][part]
            result[name][part] = rank.view(like.shape).to(like)
    return result
