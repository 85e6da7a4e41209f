"""What torch.compile is given, run without compiling, against the function that loops over timesteps."""

import math
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpap.spiking import ArcTan, Sigmoid, Triangle, compiled, fused

COMPILED = compiled._compiled


class Unchecked(ArcTan):
    """Without the checks of shapes that are on while tests run and cannot be compiled."""

    def derivative(self, x):
        return 1 / (1 + (math.pi * x) ** 2)


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch):
    monkeypatch.setattr(compiled, "_compiled", lambda function, *arguments: function(*arguments))


def gradients(function, current, rate, weight, *rule):
    current = current.detach().requires_grad_()
    wanted = [current]
    if isinstance(rate, torch.Tensor):
        rate = rate.detach().requires_grad_()
        wanted.append(rate)
    spikes = function(current, rate, *rule)
    return spikes.detach(), *torch.autograd.grad((spikes * weight).sum(), wanted)


def compare(current, rate, weight, rule):
    result = gradients(compiled.integrate_and_fire, current, rate, weight, *rule)
    expected = gradients(fused.integrate_and_fire, current, rate, weight, *rule)
    assert torch.equal(result[0], expected[0])
    assert result[0].stride() == expected[0].stride()
    for r, e in zip(result[1:], expected[1:], strict=True):
        assert r.dtype == e.dtype
        tolerance = {"rtol": 1e-4, "atol": 1e-4} if r.dtype == torch.float32 else {}
        torch.testing.assert_close(r, e, **tolerance)


rules = st.tuples(
    st.sampled_from([0.5, 1.0, 1.7]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([ArcTan(), ArcTan(0.7), Sigmoid(), Triangle(), Triangle(2.5)]),
)
rates = st.sampled_from([None, 0.5, 0.3, torch.tensor(0.4), torch.tensor(0.8)])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 5), st.sampled_from([0, 1, 3, 40]), rates, rules)
def test_equals_the_loop(steps, units, rate, rule):
    generator = torch.Generator().manual_seed(steps + 31 * units)
    current = torch.randn(steps, 2, units, generator=generator) * 2 + 0.5
    compare(current, rate, torch.randn(current.shape, generator=generator), rule)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("hard", [True, False])
def test_precisions(dtype, hard):
    current = (torch.randn(6, 3, 5) * 2).to(dtype)
    rate = torch.tensor(0.4, dtype=torch.promote_types(dtype, torch.float32))
    compare(current, rate, torch.randn(6, 3, 5).to(dtype), (1.0, hard, False, ArcTan()))


@pytest.mark.parametrize(
    "layout",
    [
        lambda x: x[:1].expand_as(x),
        lambda x: x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, x.shape[:2]),
        lambda x: torch.stack([x, x], -1)[..., 0],
    ],
)
def test_any_memory_layout(layout):
    current, weight = torch.randn(2, 4, 2, 3, 5, 6) * 2
    rule = (1.0, True, False, ArcTan())
    compare(layout(current), torch.tensor(0.4), weight, rule)
    compare(current, torch.tensor(0.4), layout(weight), rule)


def test_every_rule_is_compiled_once_however_many_there_are_and_whatever_the_shapes(monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(compiled, "_compiled", COMPILED)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    compiled._compile.cache_clear()
    rule = (0.5, 1.0, True, False, Unchecked())
    shapes = (3,), (5,), (3, 4, 4), (7, 2, 5)
    for steps in range(2, 12):
        for units in shapes if steps == 2 else shapes[:1]:
            rows = torch.randn(steps * 2, *units)
            if len(units) == 3:
                rows = rows.to(memory_format=torch.channels_last)
            for current in (rows.unflatten(0, (steps, 2)), torch.randn(steps + 1, 4, *units)[1:, ::2]):
                current.requires_grad_()
                spikes = compiled.integrate_and_fire(current, *rule)
                spikes.backward(torch.ones_like(spikes))
                assert torch.equal(spikes, fused.integrate_and_fire(current, *rule))
    compiled._compile.cache_clear()
    assert len(graphs) == 2 * 10  # there and back
