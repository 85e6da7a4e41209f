"""Contribution to the loss: what the loss would lose, to first order, if a part of the network fell silent."""

from dpap.plasticity.criteria.base import Contribution, Criterion
from dpap.plasticity.statistics import Statistics


class Taylor(Criterion):
    """Mean square, over the steps of training, of the contribution of each part to the loss of the batch.

    Of a synapse that contribution is w dL/dw, of a unit the sum of it over all that reads the unit, which is the sum
    of a dL/da over its activity, and of a neuron-timestep the sum of s dL/ds over its spikes. First-order Taylor
    importance (Molchanov et al. 2017, 2019, arXiv 1611.06440, 1906.10771, equation 8); in the words of synaptic
    plasticity a three-factor rule: presynaptic trace times postsynaptic error signal, gated by the weight.
    """

    observes = False
    observes_timesteps = False
    observes_gradients = True

    def observe_contribution(self, statistics: Statistics, shown: Contribution) -> None:
        statistics.units += shown.units.square()
        if statistics.synapses is not None and shown.synapses is not None:
            statistics.synapses.addcmul_(shown.synapses, shown.synapses)
        if statistics.timesteps is not None and shown.timesteps is not None:
            statistics.timesteps += shown.timesteps.square()
