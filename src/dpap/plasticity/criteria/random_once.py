"""A control as constant as activity is: importance is drawn once."""

from jaxtyping import Float
from torch import Tensor

from dpap.plasticity.criteria.base import Evidence, synapses_of, timesteps_of
from dpap.plasticity.criteria.random import Random
from dpap.plasticity.memory import Memory


class RandomOnce(Random):
    """Uniform importance, drawn in the first epoch that asks for it and kept for life.

    What is drawn anew every epoch averages out: survival stays near the mean, few units die, and synapses pay for
    them. Who draws low here stays low, as who is seldom active does, so that as many units die as by activity.
    """

    def begin_epoch(self, memory: Memory) -> None:
        return

    def unit_importance(self, evidence: Evidence) -> Float[Tensor, " unit"]:
        return _once(evidence.memory.units, super().unit_importance(evidence))

    def synapse_importance(self, evidence: Evidence) -> Float[Tensor, "unit feature"]:
        return _once(synapses_of(evidence.memory), super().synapse_importance(evidence))

    def timestep_importance(self, evidence: Evidence) -> Float[Tensor, "time unit"]:
        return _once(timesteps_of(evidence.memory), super().timestep_importance(evidence))


def _once(kept: Tensor, drawn: Tensor) -> Tensor:
    """What the memory keeps, which takes what is drawn where it is still blank."""
    if not kept.any():
        kept.copy_(drawn)
    return kept
