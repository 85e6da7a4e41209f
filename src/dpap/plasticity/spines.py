"""Neuronal importance: dendritic spines, equation (7)."""

import torch
from jaxtyping import Float
from torch import Tensor

from dpap.plasticity.synapses import potentiation


def spines(
    pre_total: Float[Tensor, " batch"],
    post: Float[Tensor, "batch unit"],
    threshold: Float[Tensor, "*slot unit"],
) -> Float[Tensor, " unit"]:
    """D_i = sum_n S_i sum_j BCM_ij = sum_n S_i^2 (S_i - theta_i) sum_j S_j, (7); forms no BCM matrix.

    `pre_total` is sum_j S_j of each sample n. The product is taken per sample, not of batch totals, so that
    (but for theta, which moves between batches) it does not matter how the samples are cut into batches.
    """
    return torch.mv((post * potentiation(post, threshold)).T, pre_total)
