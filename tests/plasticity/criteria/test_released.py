import pytest
import torch

from dpap.plasticity import CRITERIA, normalise
from support.context import context, rand

RELEASED = CRITERIA["released"]


def blank(**kinds):
    return RELEASED.blank(3, 4, **{"synapses": True, "dtype": torch.float64, **kinds})


def test_no_sum_is_ever_reset():
    statistics = blank()
    RELEASED.observe(statistics, rand(1, 2, 4), rand(1, 2, 3), 0.5)
    before = statistics.state_dict()
    RELEASED.begin_interval(statistics)
    assert all(
        torch.equal(torch.as_tensor(value), torch.as_tensor(before[name]))
        for name, value in statistics.state_dict().items()
    )


def test_batches_of_changing_size():
    statistics = blank()
    first, short, long = rand(2, 3), rand(1, 3, seed=1), rand(3, 3, seed=2)
    RELEASED.observe(statistics, rand(1, 2, 4), first[None], 0.5)
    RELEASED.observe(statistics, rand(1, 1, 4), short[None], 0.5)
    expected = torch.stack([(first[0] + short[0]) / 2, first[1]])
    assert torch.allclose(statistics.threshold, expected, rtol=1e-12)
    RELEASED.observe(statistics, rand(1, 3, 4), long[None], 0.5)
    expected = (torch.cat([expected, expected.mean(0, keepdim=True)]) * 2 + long) / 3
    assert torch.allclose(statistics.threshold, expected, rtol=1e-12)


def test_importance_does_not_need_the_matrix():
    whole, rows = blank(), blank(synapses=False)
    for seed in range(3):
        for statistics in (whole, rows):
            RELEASED.observe(statistics, rand(1, 2, 4, seed=seed), rand(1, 2, 3, seed=seed + 9), 0.5)
    everything = torch.ones(3, dtype=torch.bool)
    expected = normalise(whole.synapses.sum(1), everything) * normalise(whole.activity, everything)
    assert torch.allclose(RELEASED.unit_importance(context(rows)), expected, rtol=1e-10)


def test_how_it_departs_from_the_equations():
    counts = torch.ones(4, 1, 1)
    for criterion, expected in ((CRITERIA["bcm"], 1.875), (RELEASED, 1.875 / 4)):
        shown = criterion.presentation(counts, counts, 0.5)
        assert shown.pre_trace.item() == shown.post_trace.item() == expected
    importance, alive = torch.tensor([0.0, 1.0, 2.0, 9.0]), torch.tensor([False, True, True, True])
    assert RELEASED.normalise(importance, alive).tolist() == pytest.approx([0, 1 / 3.75, 2 / 3.75, 1])
    assert RELEASED.strict
    assert RELEASED.decay(6, 12.0) == 1
