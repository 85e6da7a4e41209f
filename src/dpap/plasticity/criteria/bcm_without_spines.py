"""An ablation of the paper's criterion: a unit is as important as its synapses together."""

from jaxtyping import Float
from torch import Tensor

from dpap.plasticity.criteria.bcm import Bcm
from dpap.plasticity.synapses import bcm


class BcmWithoutSpines(Bcm):
    """BCM with sum_j BCM_ij over the epoch, (6), in place of D (7), for units."""

    def _of_units(
        self,
        pre_total: Float[Tensor, " batch"],
        post: Float[Tensor, "batch unit"],
        threshold: Float[Tensor, "*slot unit"],
    ) -> Float[Tensor, " unit"]:
        return bcm(pre_total[:, None], post, threshold)[:, 0]
