"""Hebb's rule in place of BCM: what fires together is important, however usual that is."""

import torch
from jaxtyping import Float
from torch import Tensor

from dpap.plasticity.criteria.base import Criterion
from dpap.plasticity.statistics import Statistics
from dpap.plasticity.traces import trace


class Hebb(Criterion):
    """Hebb_ij = S_j S_i in place of BCM (3), as in the paper's Fig. 3g: (6) and (7) without a threshold.

    Synapses are worth sum_n S_j S_i, units D_i = sum_n S_i sum_j Hebb_ij = sum_n S_i^2 sum_j S_j.
    """

    def _add(
        self,
        statistics: Statistics,
        pre: Float[Tensor, "time batch feature"],
        post: Float[Tensor, "time batch unit"],
        decay: float,
    ) -> None:
        arrived, emitted = trace(pre, decay), trace(post, decay)
        statistics.units += torch.mv(emitted.square().T, arrived.sum(1))
        if statistics.synapses is not None:
            statistics.synapses.addmm_(emitted.T, arrived)
