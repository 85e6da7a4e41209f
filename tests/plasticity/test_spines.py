import torch
from hypothesis import given
from hypothesis import strategies as st

from dpap.plasticity import bcm, spines


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.booleans(), st.integers(0, 999))
def test_spines_are_the_sum_over_samples_of_trace_times_summed_bcm(samples, units, features, slots, seed):
    generator = torch.Generator().manual_seed(seed)
    pre = torch.rand(samples, features, generator=generator).double()
    post = torch.rand(samples, units, generator=generator).double()
    threshold = torch.rand(*([samples] if slots else []), units, generator=generator).double()
    slow = torch.zeros(units).double()
    for n in range(samples):
        one = threshold[n : n + 1] if slots else threshold
        slow += post[n] * bcm(pre[n : n + 1], post[n : n + 1], one).sum(1)
    assert torch.allclose(spines(pre.sum(1), post, threshold), slow, rtol=1e-11, atol=1e-14)


@given(st.integers(1, 4), st.integers(0, 999))
def test_cutting_a_batch_changes_nothing(cut, seed):
    generator = torch.Generator().manual_seed(seed)
    pre, post = torch.rand(5, generator=generator).double(), torch.rand(5, 3, generator=generator).double()
    threshold = torch.rand(3, generator=generator).double()
    parts = spines(pre[:cut], post[:cut], threshold) + spines(pre[cut:], post[cut:], threshold)
    assert torch.allclose(spines(pre, post, threshold), parts, rtol=1e-11, atol=1e-14)
