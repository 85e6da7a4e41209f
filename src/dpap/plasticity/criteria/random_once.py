"""A control as constant as activity is: importance is drawn once."""

from jaxtyping import Float
from torch import Tensor

from dpap.plasticity.criteria.base import LayerContext
from dpap.plasticity.criteria.random import Random
from dpap.plasticity.statistics import Statistics


class RandomOnce(Random):
    """Uniform importance, drawn in the first epoch that needs it and kept for the whole run.

    What is drawn anew every epoch averages out: survival stays near the mean, few units die, and synapses die in their
    place. What draws low here stays low, as what is seldom active does, so that as many units die as by activity.
    """

    def begin_interval(self, statistics: Statistics, memory: float = 0.0) -> None:
        return

    def unit_importance(self, layer: LayerContext) -> Float[Tensor, " unit"]:
        return _once(layer.statistics.units, super().unit_importance(layer))

    def synapse_importance(self, layer: LayerContext) -> Float[Tensor, "unit feature"]:
        return _once(layer.statistics.of_synapses(), super().synapse_importance(layer))

    def timestep_importance(self, layer: LayerContext) -> Float[Tensor, "time unit"]:
        return _once(layer.statistics.of_timesteps(), super().timestep_importance(layer))


def _once(kept: Tensor, drawn: Tensor) -> Tensor:
    """What the statistics keep, which take what is drawn where they are still blank."""
    if not kept.any():
        kept.copy_(drawn)
    return kept
