import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpap.plasticity import CRITERIA, bcm, spines, trace
from support.context import context, rand

BCM = CRITERIA["bcm"]


@settings(max_examples=30)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 999), st.sampled_from([0.0, 0.5, 1.0])
)
def test_an_epoch_is_summed_with_the_threshold_before_its_update(sizes, seed, decay):
    statistics = BCM.blank(3, 4, synapses=True, dtype=torch.float64)
    threshold, seen = torch.zeros(3).double(), []
    synapses, neurons = torch.zeros(3, 4).double(), torch.zeros(3).double()
    for number, size in enumerate(sizes):
        counts = rand(2, size, 4, seed=seed + number), rand(2, size, 3, seed=seed + number + 100)
        pre, post = (trace(count, decay) for count in counts)
        synapses += bcm(pre, post, threshold)
        neurons += spines(pre.sum(1), post, threshold)
        seen.append(post)
        threshold = torch.cat(seen).mean(0)
        BCM.observe(statistics, *counts, decay)
    close = {"rtol": 1e-11, "atol": 1e-13}
    assert torch.allclose(BCM.synapse_importance(context(statistics)), synapses, **close)
    assert torch.allclose(BCM.unit_importance(context(statistics)), neurons, **close)
    assert torch.allclose(statistics.threshold, threshold, **close)
    assert torch.allclose(statistics.activity, torch.cat(seen).sum(0), **close)
    assert (statistics.samples, statistics.batches) == (sum(sizes), len(sizes))


def test_an_epoch_starts_from_nothing_but_the_threshold():
    statistics = BCM.blank(3, 4, synapses=True, dtype=torch.float64)
    BCM.observe(statistics, rand(1, 2, 4), rand(1, 2, 3), 0.5)
    threshold = statistics.threshold.clone()
    BCM.begin_interval(statistics)
    assert torch.equal(statistics.threshold, threshold)
    BCM.observe(statistics, rand(1, 2, 4, seed=1), rand(1, 2, 3, seed=2), 0.5)
    alone = bcm(rand(2, 4, seed=1), rand(2, 3, seed=2), threshold)
    assert torch.allclose(BCM.synapse_importance(context(statistics)), alone, rtol=1e-12)
