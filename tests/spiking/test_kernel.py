"""The Triton kernels against the function for CPUs, in Triton's interpreter where there is no GPU."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # is read while triton is imported
pytest.importorskip("triton")

from dpap.spiking import fused, kernel
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

device = "cuda" if torch.cuda.is_available() else "cpu"


@given(st.integers(1, 5), st.sampled_from([0, 1, 3, 300]), rates, rules, sharpnesses)
@settings(max_examples=60)
def test_equals_the_function_for_cpus(steps, units, rate, rule, sharpness):
    generator = torch.Generator().manual_seed(steps + 31 * units)
    current = torch.randn(steps, 2, units, generator=generator) * 2 + 0.5
    weight = torch.randn(current.shape, generator=generator)
    compare_with_fused(kernel, current, rate, weight, rule, device, sharpness)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("hard", [True, False])
def test_half_precision(dtype, hard):
    current = (torch.randn(6, 3, 5) * 2).to(dtype)
    rule = Rule(1.0, hard, False, RULE.surrogate)
    compare_with_fused(
        kernel, current, torch.tensor(0.4), torch.randn(6, 3, 5).to(dtype), rule, device, torch.tensor(1.3)
    )


@pytest.mark.parametrize("layout", [expanded, batch_first, channels_last, spread])
def test_any_memory_layout(layout):
    current, weight = torch.randn(2, 4, 2, 3, 5, 6) * 2
    compare_with_fused(kernel, layout(current), torch.tensor(0.4), weight, RULE, device)
    compare_with_fused(kernel, current, torch.tensor(0.4), layout(weight), RULE, device)


def test_keeps_nothing_in_evaluation():
    current = torch.randn(4, 2, 3, device=device) * 2
    assert torch.equal(run(kernel)(current, 0.5, RULE), run(fused)(current, 0.5, RULE))
