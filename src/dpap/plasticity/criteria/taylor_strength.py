"""Contribution to the loss, shared among the synapses of a unit by their strength: the default."""

from jaxtyping import Float
from torch import Tensor

from dpap.plasticity.criteria.base import LayerContext
from dpap.plasticity.criteria.taylor import Taylor

LEAST = 1e-30
"""Below this a unit has no weights."""


class TaylorStrength(Taylor):
    """As `Taylor`, but that the synapses of a unit share what they contribute together by their strength.

    Importance of a synapse is C_i w_ij^2 / sum_k w_ik^2, with C_i the summed contributions of all synapses of the unit.
    The gradient of a single weight is a noisy measure, and a sum of many is less so. The square of a weight is what the
    second-order term of the loss has beside the curvature (Y. LeCun et al., Optimal Brain Damage, NIPS 1989), which is
    taken as alike within a unit. Evidence: docs/results/constants.md.
    """

    def synapse_importance(self, layer: LayerContext) -> Float[Tensor, "unit feature"]:
        each = layer.magnitudes().square()
        of_unit = layer.statistics.of_synapses().sum(1, keepdim=True)
        return each * (of_unit / each.sum(1, keepdim=True).clamp(min=LEAST))
