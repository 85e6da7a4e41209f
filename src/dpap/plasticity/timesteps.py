"""Importance of neuron-timesteps, equation (8)."""

import torch
from jaxtyping import Float
from torch import Tensor


def timestep_importance(
    pre_total: Float[Tensor, "time batch"], post: Float[Tensor, "time batch unit"]
) -> Float[Tensor, "time unit"]:
    """Time_i(t) = sum_j S_j^{0..t} o_i^t, (8), summed over the samples of a batch.

    `pre_total` is sum_j of the presynaptic traces after each timestep, `post` the output at that timestep.
    """
    return torch.bmm(pre_total[:, None], post)[:, 0]
