import torch

from dpap.plasticity import CRITERIA, trace
from support.context import context, spikes

HEBB = CRITERIA["hebb"]


def test_synapses_are_worth_the_product_of_their_traces_and_units_that_times_their_own():
    statistics = HEBB.blank(3, 4, synapses=True, dtype=torch.float64)
    synapses, units = torch.zeros(3, 4).double(), torch.zeros(3).double()
    for seed in range(2):
        pre, post = spikes(5, 3, 4, seed=seed), spikes(5, 3, 3, seed=seed + 9)
        HEBB.observe(statistics, pre, post, 0.5)
        for arrived, emitted in zip(trace(pre, 0.5), trace(post, 0.5), strict=True):
            for i in range(3):
                for j in range(4):
                    synapses[i, j] += arrived[j] * emitted[i]
                    units[i] += emitted[i] * arrived[j] * emitted[i]
    assert torch.allclose(HEBB.synapse_importance(context(statistics)), synapses, rtol=1e-12)
    assert torch.allclose(HEBB.unit_importance(context(statistics)), units, rtol=1e-12)
