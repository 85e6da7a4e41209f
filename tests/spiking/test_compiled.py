"""The functions that torch.compile compiles, run without compiling, against `fused`."""

import math
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpap.spiking import ArcTan, compiled, fused
from dpap.spiking.rule import Rule
from spiking.backends import (
    RULE,
    batch_first,
    channels_last,
    compare_with_fused,
    expanded,
    rates,
    rules,
    run,
    sharpnesses,
    spread,
)

COMPILED = compiled._compiled


class Unchecked(ArcTan):
    """Without the checks of shapes that are on while tests run and cannot be compiled."""

    def derivative(self, x):
        return 1 / (1 + (math.pi * x) ** 2)


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch):
    monkeypatch.setattr(compiled, "_compiled", lambda function, *arguments: function(*arguments))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 5), st.sampled_from([0, 1, 3, 40]), rates, rules, sharpnesses)
def test_equals_the_loop(steps, units, rate, rule, sharpness):
    generator = torch.Generator().manual_seed(steps + 31 * units)
    current = torch.randn(steps, 2, units, generator=generator) * 2 + 0.5
    weight = torch.randn(current.shape, generator=generator)
    compare_with_fused(compiled, current, rate, weight, rule, sharpness=sharpness)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("hard", [True, False])
def test_precisions(dtype, hard):
    current = (torch.randn(6, 3, 5) * 2).to(dtype)
    rate = torch.tensor(0.4, dtype=torch.promote_types(dtype, torch.float32))
    rule = Rule(1.0, hard, False, RULE.surrogate)
    sharpness = torch.tensor(1.3, dtype=rate.dtype)
    compare_with_fused(compiled, current, rate, torch.randn(6, 3, 5).to(dtype), rule, sharpness=sharpness)


@pytest.mark.parametrize("layout", [expanded, batch_first, channels_last, spread])
def test_any_memory_layout(layout):
    current, weight = torch.randn(2, 4, 2, 3, 5, 6) * 2
    compare_with_fused(compiled, layout(current), torch.tensor(0.4), weight, RULE)
    compare_with_fused(compiled, current, torch.tensor(0.4), layout(weight), RULE)


def test_every_rule_is_compiled_once_however_many_there_are_and_whatever_the_shapes(monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(compiled, "_compiled", COMPILED)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    compiled._compile.cache_clear()
    rule = Rule(1.0, True, False, Unchecked())
    shapes = (3,), (5,), (3, 4, 4), (7, 2, 5)
    for steps in range(2, 12):
        for units in shapes if steps == 2 else shapes[:1]:
            rows = torch.randn(steps * 2, *units)
            if len(units) == 3:
                rows = rows.to(memory_format=torch.channels_last)
            for current in (rows.unflatten(0, (steps, 2)), torch.randn(steps + 1, 4, *units)[1:, ::2]):
                current.requires_grad_()
                spikes = run(compiled)(current, 0.5, rule)
                spikes.backward(torch.ones_like(spikes))
                assert torch.equal(spikes, run(fused)(current, 0.5, rule))
    compiled._compile.cache_clear()
    assert len(graphs) == 2 * 10  # there and back
