"""A control: what is active is important, and nothing else is looked at."""

from jaxtyping import Float
from torch import Tensor

from dpap.plasticity.criteria.base import Criterion
from dpap.plasticity.statistics import Statistics


class FiringRate(Criterion):
    """Summed activity, all timesteps alike: spikes, or the activations of a network without time.

    A unit is worth its own activity, a synapse that of the feature it comes from, and a neuron-timestep that of the
    neuron at that timestep.
    """

    def _add(
        self,
        statistics: Statistics,
        pre: Float[Tensor, "time batch feature"],
        post: Float[Tensor, "time batch unit"],
        decay: float,
    ) -> None:
        statistics.units += post.sum((0, 1))
        if statistics.synapses is not None:
            statistics.synapses += pre.sum((0, 1))

    def _of_timesteps(
        self,
        pre: Float[Tensor, "time batch feature"],
        post: Float[Tensor, "time batch unit"],
        decay: float,
    ) -> Float[Tensor, "time unit"]:
        return post.sum(1)
