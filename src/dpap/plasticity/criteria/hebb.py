"""Hebb's rule in place of BCM: what fires together is important, however usual that is."""

import torch
from jaxtyping import Float
from torch import Tensor

from dpap.plasticity.criteria.base import Criterion, Presentation
from dpap.plasticity.statistics import Statistics


class Hebb(Criterion):
    """Hebb_ij = S_j S_i in place of BCM (3), as in the paper's Fig. 3g: (6) and (7) without a threshold.

    Importance of a synapse is sum_n S_j S_i, of a unit D_i = sum_n S_i sum_j Hebb_ij = sum_n S_i^2 sum_j S_j.
    """

    def observe_units(
        self, sums: Float[Tensor, " unit"], shown: Presentation, statistics: Statistics
    ) -> None:
        sums += torch.mv(shown.post_trace.square().T, shown.pre_trace.sum(1))

    def observe_synapses(
        self, sums: Float[Tensor, "unit feature"], shown: Presentation, statistics: Statistics
    ) -> None:
        sums.addmm_(shown.post_trace.T, shown.pre_trace)
