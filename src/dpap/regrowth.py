"""Regrowth: synapses that died come back in the place of weaker ones, where activity calls for them.

The importance of a dead synapse is known, for its two neurons are still observed. A dead neuron is silent and cannot
call; what returns are therefore single synapses between living neurons, as many in each layer as die for them.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def exchange(
    living: Bool[Tensor, "unit feature"],
    absent: Bool[Tensor, "unit feature"],
    lasting: Float[Tensor, "unit feature"],
    call: Float[Tensor, "unit feature"],
    share: float,
) -> Bool[Tensor, "unit feature"]:
    """Who lives after the weakest have made room, as many as before.

    The synapse that would die next is paired with the dead one of the largest call, the one after it with the next,
    and so on; of each pair the one of larger importance lives. Every unit keeps its strongest synapse. Drop and grow as
    in RigL (Evci et al. 2020, arXiv 1911.11134), by activity in place of magnitude and gradient.

    Args:
        living: who lives, between useful units and features that receive something.
        absent: who is dead there and may return.
        lasting: the shift of the decay value at which each would die; infinite for the spared.
        call: importance of the living and the dead.
        share: of the living, that may be exchanged.
    """
    spared = lasting.masked_fill(~living, -torch.inf).argmax(1, keepdim=True)
    lasting = lasting.masked_fill(~living, torch.inf).scatter(1, spared, torch.inf).flatten()
    leaving = lasting.argsort(stable=True)[: int(lasting.isfinite().sum())]
    coming = call.masked_fill(~absent, -torch.inf).flatten().argsort(descending=True, stable=True)
    number = min(int(share * int(living.sum())), len(leaving), int(absent.sum()))
    leaving, coming = leaving[:number], coming[:number]
    better = call.flatten()[coming] > call.flatten()[leaving]
    after = living.flatten().clone()
    after[leaving[better]] = False
    after[coming[better]] = True
    return after.view_as(living)
