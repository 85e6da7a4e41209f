import torch
from hypothesis import given
from hypothesis import strategies as st

from dpap.plasticity import running_traces, timestep_importance


@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(0, 999))
def test_timestep_importance_is_the_slow_sum(time, samples, features, units, seed):
    generator = torch.Generator().manual_seed(seed)
    pre = (torch.rand(time, samples, features, generator=generator) < 0.5).double()
    post = (torch.rand(time, samples, units, generator=generator) < 0.5).double()
    slow = torch.zeros(time, units).double()
    for n in range(samples):
        state = torch.zeros(features).double()
        for t in range(time):
            state = 0.5 * state + pre[t, n]
            for i in range(units):
                for j in range(features):
                    slow[t, i] += state[j] * post[t, n, i]
    assert torch.allclose(timestep_importance(running_traces(pre, 0.5).sum(2), post), slow, rtol=1e-12)


def test_a_silent_timestep_is_worth_nothing():
    post = torch.ones(3, 2, 2)
    post[1, :, 0] = 0
    importance = timestep_importance(torch.ones(3, 2), post)
    assert torch.equal(importance, torch.tensor([[2.0, 2.0], [0.0, 2.0], [2.0, 2.0]]))
