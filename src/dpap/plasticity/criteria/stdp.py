"""Spike-timing dependent plasticity in place of BCM: important is what fires before, not after."""

from jaxtyping import Float
from torch import Tensor

from dpap.plasticity.criteria.base import Criterion, Presentation
from dpap.plasticity.statistics import Statistics

DEPRESSION = 1.05
"""A-/A+, by how much depression outweighs potentiation: Song, Miller & Abbott (2000), Nature Neuroscience 3:919."""


class Stdp(Criterion):
    """Pair-based STDP over all pairs of spikes, in place of BCM (3), as in the paper's Fig. 3g.

    STDP_ij = sum_t S_j(t) o_i(t) - 1.05 (S_i(t) - o_i(t)) o_j(t): each output spike potentiates by the trace of its
    input up to now, each input spike depresses by the trace of the output before now (Morrison, Diesmann & Gerstner
    2008, Biol. Cybern. 98:459). Spikes of the same timestep potentiate, for layers pass them on within it. Both traces
    decay by the tau of (1), as Song et al. take one time constant for both; the scale A+ does not matter, for
    importance is normalised. Importance of a synapse is its sum over samples, of a unit
    D_i = sum_n S_i sum_j STDP_ij, (7), with S_i the final trace.

    Without time (T = 1) nothing comes before anything: what is left is Hebb's o_j o_i.
    """

    def observe_units(
        self, sums: Float[Tensor, " unit"], shown: Presentation, statistics: Statistics
    ) -> None:
        before = shown.post_traces - shown.post
        potentiating = shown.pre_traces.sum(2, keepdim=True) * shown.post
        of_rows = potentiating - DEPRESSION * before * shown.pre.sum(2, keepdim=True)
        sums += (shown.post_traces[-1] * of_rows.sum(0)).sum(0)

    def observe_synapses(
        self, sums: Float[Tensor, "unit feature"], shown: Presentation, statistics: Statistics
    ) -> None:
        before = shown.post_traces - shown.post
        # time and batch are summed alike, so both are one axis of one product
        sums.addmm_(shown.post.flatten(0, 1).T, shown.pre_traces.flatten(0, 1))
        sums.addmm_(before.flatten(0, 1).T, shown.pre.flatten(0, 1), alpha=-DEPRESSION)
