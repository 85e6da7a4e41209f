"""A baseline: what has large weights is important."""

from jaxtyping import Float
from torch import Tensor

from dpap.plasticity.criteria.base import Criterion, LayerContext, strengths, synapses_of
from dpap.plasticity.statistics import Statistics


class Magnitude(Criterion):
    """|w| of a synapse, and of a unit the mean |w| of its incoming weights.

    The mean ranks as the L1 norm of Li et al. (2017), arXiv 1608.08710, since all units of a layer have as many.
    Timesteps have no weights: they are judged by (8), from activity.
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

    def unit_importance(self, context: LayerContext) -> Float[Tensor, " unit"]:
        return strengths(context).mean(1)

    def synapse_importance(self, context: LayerContext) -> Float[Tensor, "unit feature"]:
        return strengths(context).type_as(synapses_of(context.statistics))
