"""A baseline: what has large weights is important."""

from jaxtyping import Float
from torch import Tensor

from dpap.plasticity.criteria.base import Criterion, LayerContext


class Magnitude(Criterion):
    """|w| of a synapse, and of a unit the mean |w| of its incoming weights.

    The mean ranks as the L1 norm of Li et al. (2017), arXiv 1608.08710, since all units of a layer have as many.
    Timesteps have no weights: their importance is that of (8), from activity.
    """

    observes = False

    def unit_importance(self, layer: LayerContext) -> Float[Tensor, " unit"]:
        return layer.magnitudes().mean(1)

    def synapse_importance(self, layer: LayerContext) -> Float[Tensor, "unit feature"]:
        return layer.magnitudes()
