import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import nn

from dpap.spiking import IF, LIF, PLIF, ArcTan, Sigmoid, SpikingNeuron, Triangle
from dpap.spiking.integrate import integrate_and_fire
from dpap.spiking.rule import Rule


def test_if_adds_up_its_input():
    spikes = IF(threshold=1.0)(torch.full((6, 1, 1), 0.5))
    assert spikes.flatten().tolist() == [0, 1, 0, 1, 0, 1]


def test_soft_reset_keeps_what_exceeds_the_threshold():
    current = torch.full((4, 1, 1), 0.75)
    assert IF(reset="hard")(current).flatten().tolist() == [0, 1, 0, 1]
    assert IF(reset="soft")(current).flatten().tolist() == [0, 1, 1, 1]


@given(st.floats(1.05, 20), st.floats(1.05, 8))
def test_first_spike_of_lif_is_where_the_exponential_crosses(tau, drive):
    """h_t = x (1 - (1 - 1/tau)^t), the textbook charging curve."""
    spikes = LIF(tau)(torch.full((64, 1, 1), drive, dtype=torch.float64)).flatten()
    crossing = math.log(1 - 1 / drive) / math.log(1 - 1 / tau)
    first = int(spikes.argmax()) + 1 if spikes.any() else math.inf
    if abs(crossing - round(crossing)) > 1e-6 and crossing < 64:
        assert first == math.ceil(crossing)


def test_weak_constant_current_never_fires_a_leaky_neuron():
    assert not LIF()(torch.full((1000, 1, 1), 0.99)).any()


def test_plif_starts_as_lif_and_learns_its_time_constant():
    current = torch.randn(8, 4, 5) * 2
    neuron = PLIF(tau=3.0)
    assert neuron.tau == pytest.approx(3.0)
    assert torch.equal(neuron(current), LIF(tau=3.0)(current))
    neuron(current).sum().backward()
    w = neuron.w.detach().clone().requires_grad_()
    rule = Rule(neuron.threshold, True, False, neuron.surrogate)
    integrate_and_fire(current, w.sigmoid(), rule).sum().backward()
    assert neuron.w.grad.isfinite() and neuron.w.grad != 0
    torch.testing.assert_close(neuron.w.grad, w.grad)


@pytest.mark.parametrize("w", [-200.0, 200.0])
def test_plif_is_finite_at_an_extreme_time_constant(w):
    neuron = PLIF()
    neuron.w.data.fill_(w)
    current = torch.randn(5, 2, 3, requires_grad=True)
    neuron(current).sum().backward()
    assert current.grad.isfinite().all() and neuron.w.grad.isfinite()


@pytest.mark.parametrize("neuron", [IF(), LIF(), PLIF(), LIF(reset="soft")])
def test_a_forward_leaves_no_state(neuron):
    current = torch.randn(5, 2, 3) * 2
    assert torch.equal(neuron(current), neuron(current))
    assert neuron.time_axis == 0 and isinstance(neuron, SpikingNeuron)


@given(st.integers(0, 2**20), st.sampled_from([IF, LIF, PLIF]), st.sampled_from(["hard", "soft"]))
def test_spikes_are_zero_or_one_and_dead_units_stay_silent(seed, kind, reset):
    current = torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(seed)) * 5
    current[:, :, 2] = 0
    spikes = kind(reset=reset)(current)
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}
    assert not spikes[:, :, 2].any()


def test_prints_its_settings():
    text = repr(PLIF(reset="soft", detach_reset=True, surrogate=Triangle(2.0)))
    assert text == (
        "PLIF(tau=2, threshold=1.0, reset='soft', detach_reset=True, surrogate=Triangle(width=2.0))"
    )


@pytest.mark.parametrize("threshold", [0.0, -1.0, math.nan, math.inf])
def test_threshold_must_be_positive(threshold):
    with pytest.raises(ValueError, match="threshold must be positive"):
        IF(threshold=threshold)


@pytest.mark.parametrize("kind", [LIF, PLIF])
@pytest.mark.parametrize("tau", [1.0, 0.5, math.nan, math.inf])
def test_tau_must_exceed_one(kind, tau):
    with pytest.raises(ValueError, match="tau must be greater than 1"):
        kind(tau)


def test_reset_is_one_of_two():
    with pytest.raises((ValueError, TypeCheckError), match="reset"):
        LIF(reset="none")


@pytest.mark.parametrize("shape", [(3,), (0, 2, 3)])
def test_currents_need_time_and_batch(shape):
    with pytest.raises((ValueError, TypeCheckError)):
        LIF()(torch.zeros(shape))


@pytest.mark.parametrize("surrogate", [ArcTan(), Sigmoid(), Triangle(0.7)])
def test_a_learned_surrogate_starts_as_it_was_given_and_becomes_one_of_another_width(surrogate):
    current = torch.randn(6, 4, 5, dtype=torch.float64) * 2
    weight = torch.randn(current.shape, dtype=torch.float64)

    def gradient(neuron):
        leaf = current.clone().requires_grad_()
        (neuron(leaf) * weight).sum().backward()
        return leaf.grad

    neuron = LIF(surrogate=surrogate, learn_surrogate=True).double()
    assert neuron.sharpness == 1
    torch.testing.assert_close(gradient(neuron), gradient(LIF(surrogate=surrogate)))
    assert neuron.log_sharpness.grad != 0
    nn.init.constant_(neuron.log_sharpness, math.log(2))
    narrower = replace(
        surrogate,
        **{name: 2 * value if name == "alpha" else value / 2 for name, value in vars(surrogate).items()},
    )
    torch.testing.assert_close(gradient(neuron), gradient(LIF(surrogate=narrower)))
    assert "sharpness=2" in repr(neuron) and "sharpness" not in repr(LIF(surrogate=surrogate))


def test_sharpness_learns_in_the_layers_own_precision():
    neuron = PLIF(learn_surrogate=True).bfloat16()
    neuron(torch.randn(5, 2, 3).bfloat16() * 2).sum().backward()
    assert neuron.log_sharpness.grad.dtype == torch.bfloat16 and neuron.log_sharpness.grad.isfinite()
