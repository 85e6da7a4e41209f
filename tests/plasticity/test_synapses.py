import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpap.plasticity import bcm, potentiation, sliding_threshold


def slow_bcm(pre, post, threshold):
    samples, units, features = len(pre), post.shape[1], pre.shape[1]
    return torch.tensor(
        [
            [
                sum(
                    pre[n, j].item() * post[n, i].item() * (post[n, i] - threshold[n, i]).item()
                    for n in range(samples)
                )
                for j in range(features)
            ]
            for i in range(units)
        ],
        dtype=torch.float64,
    )


@pytest.fixture
def activity():
    return torch.rand(5, 4).double(), torch.rand(5, 3).double()


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.booleans(), st.integers(0, 999))
def test_bcm_is_the_slow_sum(samples, units, features, slots, seed):
    generator = torch.Generator().manual_seed(seed)
    pre = torch.rand(samples, features, generator=generator).double()
    post = torch.rand(samples, units, generator=generator).double()
    threshold = torch.rand(*([samples] if slots else []), units, generator=generator).double()
    slow = slow_bcm(pre, post, threshold.expand(samples, units))
    assert torch.allclose(bcm(pre, post, threshold), slow, rtol=1e-12)


def test_bcm_adds_over_batches_with_a_fixed_threshold(activity):
    pre, post = activity
    threshold = torch.rand(3).double()
    parts = bcm(pre[:2], post[:2], threshold) + bcm(pre[2:], post[2:], threshold)
    assert torch.allclose(bcm(pre, post, threshold), parts, rtol=1e-12)


def test_bcm_strengthens_above_the_threshold_only():
    post = torch.tensor([[0.5, 1.0, 2.0, 0.0]])
    assert torch.equal(potentiation(post, torch.ones(4)).sign(), torch.tensor([[-1.0, 0.0, 1.0, 0.0]]))
    assert torch.equal(bcm(torch.zeros(1, 2), post, torch.ones(4)), torch.zeros(4, 2))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 999))
def test_threshold_is_the_mean_over_all_samples_however_cut(sizes, seed):
    post = torch.rand(sum(sizes), 3, generator=torch.Generator().manual_seed(seed)).double()
    threshold, seen = torch.zeros(3).double(), 0
    for batch in post.split(sizes):
        threshold = sliding_threshold(threshold, seen, batch)
        seen += len(batch)
    assert torch.allclose(threshold, post.mean(0), rtol=1e-12)
