"""The Triton kernels against the function for CPUs, in Triton's interpreter where there is no GPU."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # is read while triton is imported
pytest.importorskip("triton")

from dpap.spiking import ArcTan, Sigmoid, Triangle, fused, kernel

device = "cuda" if torch.cuda.is_available() else "cpu"


def gradients(function, current, rate, weight, *rule):
    current = current.detach().requires_grad_()
    wanted = [current]
    if isinstance(rate, torch.Tensor):
        rate = rate.detach().requires_grad_()
        wanted.append(rate)
    spikes = function(current, rate, *rule)
    return spikes.detach(), *torch.autograd.grad((spikes * weight).sum(), wanted)


def compare(current, rate, weight, rule):
    on_device = rate.to(device) if isinstance(rate, torch.Tensor) else rate
    result = gradients(kernel.integrate_and_fire, current.to(device), on_device, weight.to(device), *rule)
    expected = gradients(fused.integrate_and_fire, current, rate, weight, *rule)
    assert torch.equal(result[0].cpu(), expected[0])
    for r, e in zip(result[1:], expected[1:], strict=True):
        assert r.dtype == e.dtype
        tolerance = {"rtol": 1e-4, "atol": 1e-4} if r.dtype == torch.float32 else {}
        torch.testing.assert_close(r.cpu(), e, **tolerance)


rules = st.tuples(
    st.sampled_from([0.5, 1.0, 1.7]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([ArcTan(), ArcTan(0.7), Sigmoid(), Triangle(), Triangle(2.5)]),
)
rates = st.sampled_from([None, 0.5, 0.3, torch.tensor(0.4), torch.tensor(0.8)])


@given(st.integers(1, 5), st.sampled_from([0, 1, 3, 300]), rates, rules)
@settings(max_examples=60)
def test_equals_the_function_for_cpus(steps, units, rate, rule):
    generator = torch.Generator().manual_seed(steps + 31 * units)
    current = torch.randn(steps, 2, units, generator=generator) * 2 + 0.5
    compare(current, rate, torch.randn(current.shape, generator=generator), rule)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("hard", [True, False])
def test_half_precision(dtype, hard):
    current = (torch.randn(6, 3, 5) * 2).to(dtype)
    compare(current, torch.tensor(0.4), torch.randn(6, 3, 5).to(dtype), (1.0, hard, False, ArcTan()))


@pytest.mark.parametrize(
    "layout",
    [
        lambda x: x[:1].expand_as(x),
        lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
        lambda x: x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, x.shape[:2]),
        lambda x: torch.stack([x, x], -1)[..., 0],
    ],
)
def test_any_memory_layout(layout):
    current, weight = torch.randn(2, 4, 2, 3, 5, 6) * 2
    rule = (1.0, True, False, ArcTan())
    compare(layout(current), torch.tensor(0.4), weight, rule)
    compare(current, torch.tensor(0.4), layout(weight), rule)


def test_keeps_nothing_in_evaluation():
    current = torch.randn(4, 2, 3, device=device) * 2
    rule = (0.5, 1.0, True, False, ArcTan())
    assert torch.equal(kernel.integrate_and_fire(current, *rule), fused.integrate_and_fire(current, *rule))
