"""A control: importance is drawn."""

import hashlib

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dpap.plasticity.criteria.base import Criterion, LayerContext, Normalisation
from dpap.plasticity.survival import normalise


class Random(Criterion):
    """Uniform importance, drawn anew every epoch for all that is still present.

    Seed, layer, epoch and kind decide it, and nothing that was observed. What was physically removed is not drawn any
    more, so a network that is compacted while it learns draws otherwise than one that is not.
    """

    observes = False
    observes_timesteps = False

    def unit_importance(self, layer: LayerContext) -> Float[Tensor, " unit"]:
        return _drawn(layer, "units", layer.statistics.units)

    def synapse_importance(self, layer: LayerContext) -> Float[Tensor, "unit feature"]:
        return _drawn(layer, "synapses", layer.statistics.of_synapses())

    def timestep_importance(self, layer: LayerContext) -> Float[Tensor, "time unit"]:
        return _drawn(layer, "timesteps", layer.statistics.of_timesteps())

    def normalise(
        self,
        importance: Float[Tensor, "*unit"],
        alive: Bool[Tensor, "*unit"],
        configured: Normalisation = normalise,
    ) -> Float[Tensor, "*unit"]:
        # never clipped: uniform values have no outliers, and a quarter of equals would be separated by something else
        return normalise(importance, alive)


def _drawn(layer: LayerContext, kind: str, like: Tensor) -> Tensor:
    key = f"{layer.seed} {layer.epoch} {kind} {layer.name}"
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big", signed=True)
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(like.shape, generator=generator, dtype=like.dtype).to(like.device)
