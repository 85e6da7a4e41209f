"""The fused function against a loop over timesteps that autograd differentiates."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpap.spiking import fused
from dpap.spiking.layout import keep_membrane, membrane_of
from dpap.spiking.rule import Rule
from spiking.backends import (
    RULE,
    batch_first,
    channels_last,
    gradients,
    plain_loop,
    rates,
    rules,
    run,
    sharpnesses,
    spread,
)

integrate_and_fire = run(fused)


shapes = st.lists(st.integers(0, 4), min_size=0, max_size=3)


@given(
    st.integers(1, 9),
    st.integers(0, 4),
    shapes,
    rates,
    rules,
    sharpnesses,
    st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=300)
def test_equals_the_plain_loop(steps, batch, unit, rate, rule, sharpness, dtype):
    generator = torch.Generator().manual_seed(steps + 31 * batch + len(unit))
    current = torch.randn(steps, batch, *unit, dtype=dtype, generator=generator) * 2 + 0.5
    weight = torch.randn(current.shape, dtype=dtype, generator=generator)
    if isinstance(rate, torch.Tensor):
        rate = rate.to(dtype)
    if sharpness is not None:
        sharpness = sharpness.to(dtype)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    result = gradients(integrate_and_fire, current, rate, weight, rule, sharpness)
    expected = gradients(plain_loop, current, rate, weight, rule, sharpness)
    assert torch.equal(result[0], expected[0])
    for r, e in zip(result[1:], expected[1:], strict=True):
        torch.testing.assert_close(r, e, **tolerance)


@given(rates, rules)
def test_float32_gradient_is_within_1e_6_of_the_float64_plain_loop(rate, rule):
    """Relative to the largest gradient, or to 1 (the rate's may cancel to nearly nothing)."""
    generator = torch.Generator().manual_seed(1)
    current = torch.randint(-16, 33, (6, 5, 7), generator=generator) / 16 + 0.0137
    weight = torch.randn(current.shape, generator=generator)
    result = gradients(integrate_and_fire, current, rate, weight, rule)
    rate = rate.double() if isinstance(rate, torch.Tensor) else rate
    expected = gradients(plain_loop, current.double(), rate, weight.double(), rule)
    assert torch.equal(result[0].double(), expected[0])
    for r, e in zip(result[1:], expected[1:], strict=True):
        assert (r - e).abs().max() <= 1e-6 * max(1.0, e.abs().max().item())


@given(rates, rules.filter(lambda rule: not rule.detach_reset), sharpnesses)
@settings(max_examples=30)
def test_gradcheck_with_the_smooth_step(rate, rule, sharpness):
    """With the surrogate's primitive as the step, the surrogate gradient is the true one: that is checked."""
    surrogate = rule.surrogate
    generator = torch.Generator().manual_seed(2)
    current = torch.randn(4, 2, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    inputs = [current]
    if isinstance(rate, torch.Tensor):
        rate = rate.double().requires_grad_()
        inputs.append(rate)
    if sharpness is not None:
        sharpness = sharpness.double().requires_grad_()
        inputs.append(sharpness)
    narrow = 1.0 if sharpness is None else sharpness

    def step(h, at):
        # gradcheck changes its inputs in place
        return surrogate.primitive((h - at) * narrow)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "_fired", lambda h, at, out: out.copy_(step(h, at)))
        patch.setattr(fused, "_spared", lambda h, at, out: out.copy_(1 - step(h, at)))
        assert torch.autograd.gradcheck(
            lambda *_: integrate_and_fire(current, rate, rule, sharpness), inputs, atol=1e-5
        )


@pytest.mark.parametrize("rate", [None, 0.5])
def test_fires_at_the_threshold(rate):
    current = torch.tensor([[[1.0 if rate is None else 2.0]]])
    assert integrate_and_fire(current, rate, RULE).item() == 1


@given(rates, rules)
def test_silence_gives_silence(rate, rule):
    assert not integrate_and_fire(torch.zeros(7, 2, 3), rate, rule).any()


def test_constant_current_is_expanded_without_a_copy():
    constant = torch.randn(3, 4) * 2
    leaf = constant.clone().requires_grad_()
    spikes = integrate_and_fire(leaf.expand(8, 3, 4), 0.5, RULE)
    spikes.sum().backward()
    repeated = constant.repeat(8, 1, 1).requires_grad_()
    same = integrate_and_fire(repeated, 0.5, RULE)
    same.sum().backward()
    assert torch.equal(spikes, same)
    torch.testing.assert_close(leaf.grad, repeated.grad.sum(0))


@pytest.mark.parametrize("layout", [batch_first, channels_last, spread])
@pytest.mark.parametrize("hard", [True, False])
def test_any_memory_layout(layout, hard):
    current = torch.randn(4, 2, 3, 5, 6) * 2
    weight = torch.randn(4, 2, 3, 5, 6)
    rule = Rule(1.0, hard, False, RULE.surrogate)
    result = gradients(integrate_and_fire, layout(current), torch.tensor(0.4), weight, rule)
    expected = gradients(integrate_and_fire, current, torch.tensor(0.4), weight, rule)
    for r, e in zip(result, expected, strict=True):
        torch.testing.assert_close(r, e)
    upstream = gradients(integrate_and_fire, current, torch.tensor(0.4), layout(weight), rule)
    for r, e in zip(upstream, expected, strict=True):
        torch.testing.assert_close(r, e)


def test_expansion_keeps_the_memory_format():
    constant = torch.randn(2, 3, 5, 6).to(memory_format=torch.channels_last)
    spikes = integrate_and_fire(constant.expand(4, *constant.shape), 0.5, RULE)
    assert spikes.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("hard", [True, False])
def test_half_precision_is_computed_in_float32(dtype, hard, detach):
    current = (torch.randn(6, 3, 500) * 2).to(dtype)
    weight = torch.randn(6, 3, 500).to(dtype)
    rule = Rule(1.0, hard, detach, RULE.surrogate)
    result = gradients(integrate_and_fire, current, torch.tensor(0.4), weight, rule)
    expected = gradients(integrate_and_fire, current.float(), torch.tensor(0.4), weight.float(), rule)
    assert result[0].dtype == result[1].dtype == dtype
    assert torch.equal(result[0].float(), expected[0])
    # a membrane that is kept in bfloat16 is known to 2^-9 of its distance from the threshold, or better
    near = {} if dtype == torch.float16 else {"rtol": 2**-6, "atol": 2**-6}
    torch.testing.assert_close(result[1], expected[1].to(dtype), **near)
    # a sum of so many, each as near
    sums = {"rtol": 2**-6, "atol": 2**-9 * weight.numel() ** 0.5} if near else {}
    torch.testing.assert_close(result[2], expected[2], **sums)


@pytest.mark.parametrize("threshold", [1e-3, 0.1, 1.0, 1.7])
def test_both_passes_agree_on_what_fired_however_near_the_threshold_it_was(threshold):
    """Gradients of a reset that is not detached pass where a membrane did not fire, and only there."""
    limit = torch.tensor(threshold)
    steps = [limit, limit]
    for _ in range(4):
        steps = [torch.nextafter(steps[0], torch.tensor(0.0)), *steps, torch.nextafter(steps[-1], 2 * limit)]
    h = torch.stack(steps)
    stored = torch.empty_like(h, dtype=torch.bfloat16)
    keep_membrane(h.clone(), threshold, stored)
    restored = membrane_of(stored, threshold, torch.empty_like(h))
    assert torch.equal(restored >= threshold, h >= threshold)


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_only_the_membrane_is_kept(dtype, stored):
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        integrate_and_fire(torch.randn(4, 2, 3, dtype=dtype, requires_grad=True), 0.5, RULE)
    assert [(tuple(x.shape), x.dtype) for x in saved] == [((4, 2, 3), stored)]


def test_backward_twice_on_a_retained_graph():
    current = torch.randn(4, 2, 3, requires_grad=True)
    spikes = integrate_and_fire(current, 0.5, RULE)
    first, second = (torch.autograd.grad(spikes.sum(), current, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
