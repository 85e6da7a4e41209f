import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpap.plasticity import population_activity, running_traces, trace

counts = st.builds(
    lambda shape, seed: torch.rand(shape, generator=torch.Generator().manual_seed(seed)).double(),
    st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 4)),
    st.integers(0, 999),
)
decays = st.floats(0, 1)


def slow_traces(counts, decay):
    """S(t+1) = decay S(t) + o(t+1), step by step."""
    state, states = torch.zeros_like(counts[0]), []
    for step in counts:
        state = decay * state + step
        states.append(state)
    return torch.stack(states)


@given(counts, decays)
def test_closed_form_is_the_recursion(counts, decay):
    slow = slow_traces(counts, decay)
    assert torch.allclose(running_traces(counts, decay), slow, rtol=1e-12)
    assert torch.allclose(trace(counts, decay), slow[-1], rtol=1e-12)


@given(counts, decays)
def test_total_of_running_traces_is_the_running_trace_of_the_total(counts, decay):
    total = running_traces(counts.sum(2), decay)
    assert torch.allclose(total, running_traces(counts, decay).sum(2), rtol=1e-12)


def test_one_timestep_is_the_activation():
    activation = torch.rand(1, 3, 4)
    assert torch.equal(trace(activation, 0.5), activation[0])
    assert torch.equal(running_traces(activation, 0.5), activation)


def test_constant_input_may_be_expanded():
    step = torch.rand(2, 3)
    assert torch.allclose(trace(step.expand(4, 2, 3), 0.5), 1.875 * step)


@pytest.mark.parametrize("space", [(), (5,), (3, 2), (2, 2, 2)])
def test_population_activity_sums_the_map(space):
    output = torch.rand(2, 3, 4, *space)
    assert torch.allclose(population_activity(output), output.reshape(2, 3, 4, -1).sum(-1))


def test_half_precision_maps_do_not_lose_spikes():
    spikes = torch.ones(1, 1, 1, 64, 64, dtype=torch.float16)
    assert population_activity(spikes).item() == 4096
    assert population_activity(torch.ones(1, 1, 1, 70, 70, dtype=torch.bfloat16)).item() == 4900
    assert population_activity(spikes.double()).dtype == torch.float64


def test_autocast_does_not_round_traces():
    counts = torch.full((2, 1, 1), 1025.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert trace(counts, 0.5).item() == 1537.5
        assert running_traces(counts, 0.5)[1].item() == 1537.5
