"""A control as constant as activity is: importance is drawn once."""

from jaxtyping import Float
from torch import Tensor

from dpap.plasticity.criteria.base import LayerContext, synapses_of, timesteps_of
from dpap.plasticity.criteria.random import Random
from dpap.plasticity.statistics import Statistics


class RandomOnce(Random):
    """Uniform importance, drawn in the first epoch that asks for it and kept for life.

    What is drawn anew every epoch averages out: survival stays near the mean, few units die, and synapses pay for
    them. Who draws low here stays low, as who is seldom active does, so that as many units die as by activity.
    """

    def begin_epoch(self, statistics: Statistics) -> None:
        return

    def unit_importance(self, context: LayerContext) -> Float[Tensor, " unit"]:
        return _once(context.statistics.units, super().unit_importance(context))

    def synapse_importance(self, context: LayerContext) -> Float[Tensor, "unit feature"]:
        return _once(synapses_of(context.statistics), super().synapse_importance(context))

    def timestep_importance(self, context: LayerContext) -> Float[Tensor, "time unit"]:
        return _once(timesteps_of(context.statistics), super().timestep_importance(context))


def _once(kept: Tensor, drawn: Tensor) -> Tensor:
    """What the memory keeps, which takes what is drawn where it is still blank."""
    if not kept.any():
        kept.copy_(drawn)
    return kept
