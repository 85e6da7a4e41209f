"""An ablation of the paper's criterion: a unit is as important as its synapses together."""

from jaxtyping import Float
from torch import Tensor

from dpap.plasticity.criteria.base import Presentation
from dpap.plasticity.criteria.bcm import Bcm
from dpap.plasticity.statistics import Statistics
from dpap.plasticity.synapses import bcm


class BcmWithoutSpines(Bcm):
    """BCM with sum_j BCM_ij over the epoch, (6), in place of D (7), for units."""

    def observe_units(
        self, sums: Float[Tensor, " unit"], shown: Presentation, statistics: Statistics
    ) -> None:
        theta = self.threshold(statistics, len(shown.post_trace))
        sums += bcm(shown.pre_trace.sum(1)[:, None], shown.post_trace, theta)[:, 0]
