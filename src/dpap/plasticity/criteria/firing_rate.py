"""A control: what is active is important, and nothing else counts."""

from jaxtyping import Float
from torch import Tensor

from dpap.plasticity.criteria.base import Criterion, Presentation
from dpap.plasticity.statistics import Statistics


class FiringRate(Criterion):
    """Summed activity, all timesteps alike: spikes, or the activations of a network without time.

    Importance of a unit is its own activity, of a synapse that of the feature it comes from, and of a neuron-timestep
    that of the neuron at that timestep.
    """

    def observe_units(
        self, sums: Float[Tensor, " unit"], shown: Presentation, statistics: Statistics
    ) -> None:
        sums += shown.post.sum((0, 1))

    def observe_synapses(
        self, sums: Float[Tensor, "unit feature"], shown: Presentation, statistics: Statistics
    ) -> None:
        sums += shown.pre.sum((0, 1))

    def observe_timesteps(self, sums: Float[Tensor, "time unit"], shown: Presentation) -> None:
        sums += shown.post.sum(1)
