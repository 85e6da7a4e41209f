import pytest
import torch

from dpap.plasticity import CRITERIA, trace
from support.context import context, rand, spikes

STDP = CRITERIA["stdp"]


def observed(pre, post, decay=0.5):
    statistics = STDP.blank(post.shape[2], pre.shape[2], synapses=True, dtype=torch.float64)
    STDP.observe(statistics, pre, post, decay)
    return context(statistics)


@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_every_pair_of_spikes_counts_by_the_time_between_them(decay):
    pre, post = spikes(5, 3, 4), spikes(5, 3, 2, seed=7)
    final = trace(post, decay)
    synapses, units = torch.zeros(2, 4).double(), torch.zeros(2).double()
    for sample in range(3):
        for i in range(2):
            for j in range(4):
                of_pair = 0.0
                for arrives in range(5):
                    for fires in range(5):
                        sign = 1 if arrives <= fires else -1.05
                        both = pre[arrives, sample, j] * post[fires, sample, i]
                        of_pair += sign * decay ** abs(fires - arrives) * both
                synapses[i, j] += of_pair
                units[i] += final[sample, i] * of_pair
    asked = observed(pre, post, decay)
    assert torch.allclose(STDP.synapse_importance(asked), synapses, rtol=1e-12)
    assert torch.allclose(STDP.unit_importance(asked), units, rtol=1e-12)


def test_before_is_worth_more_than_after():
    early, late = torch.zeros(4, 1, 1).double(), torch.zeros(4, 1, 1).double()
    early[1], late[2] = 1, 1
    assert STDP.synapse_importance(observed(early, late)).item() == 0.5
    assert STDP.synapse_importance(observed(late, early)).item() == -0.525
    assert STDP.synapse_importance(observed(late, late)).item() == 1


def test_without_time_it_is_hebb():
    pre, post = rand(1, 6, 4), rand(1, 6, 3, seed=5)
    statistics = CRITERIA["hebb"].blank(3, 4, synapses=True, dtype=torch.float64)
    CRITERIA["hebb"].observe(statistics, pre, post, 0.5)
    asked = observed(pre, post)
    assert torch.allclose(STDP.synapse_importance(asked), statistics.synapses, rtol=1e-12)
    assert torch.allclose(STDP.unit_importance(asked), statistics.units, rtol=1e-12)
