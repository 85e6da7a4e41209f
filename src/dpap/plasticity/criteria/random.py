"""A control: importance is drawn."""

import hashlib

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dpap.plasticity.criteria.base import Criterion, LayerContext, Normalisation, synapses_of, timesteps_of
from dpap.plasticity.statistics import Statistics
from dpap.plasticity.survival import normalise


class Random(Criterion):
    """Uniform importance, drawn anew every epoch for all that is still present.

    Seed, projection, epoch and kind decide it, and nothing that was observed. What was physically removed draws no
    more, so a network that is compacted while it learns draws otherwise than one that is not.
    """

    observes = False

    def _add(
        self,
        statistics: Statistics,
        pre: Float[Tensor, "time batch feature"],
        post: Float[Tensor, "time batch unit"],
        decay: float,
    ) -> None:
        return

    def _of_timesteps(
        self,
        pre: Float[Tensor, "time batch feature"],
        post: Float[Tensor, "time batch unit"],
        decay: float,
    ) -> Float[Tensor, "time unit"]:
        return torch.zeros_like(post[:, 0])

    def unit_importance(self, context: LayerContext) -> Float[Tensor, " unit"]:
        return _drawn(context, "units", context.statistics.units)

    def synapse_importance(self, context: LayerContext) -> Float[Tensor, "unit feature"]:
        return _drawn(context, "synapses", synapses_of(context.statistics))

    def timestep_importance(self, context: LayerContext) -> Float[Tensor, "time unit"]:
        return _drawn(context, "timesteps", timesteps_of(context.statistics))

    def normalise(
        self,
        importance: Float[Tensor, "*unit"],
        alive: Bool[Tensor, "*unit"],
        mapped: Normalisation = normalise,
    ) -> Float[Tensor, "*unit"]:
        # never clipped: what is drawn has no outliers, and a quarter of equals would be told apart by something else
        return normalise(importance, alive)


def _drawn(context: LayerContext, kind: str, like: Tensor) -> Tensor:
    key = f"{context.seed} {context.epoch} {kind} {context.name}"
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big", signed=True)
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(like.shape, generator=generator, dtype=like.dtype).to(like.device)
