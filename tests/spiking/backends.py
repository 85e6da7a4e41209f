"""Gradients of spiking neurons, and one backend compared with another."""

from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor

from dpap.spiking import ArcTan, Sigmoid, Triangle, fused
from dpap.spiking.integrate import Backend, IntegrateAndFire
from dpap.spiking.layout import is_constant
from dpap.spiking.rule import Rate, Rule, Sharpness

Function = Callable[..., Tensor]
"""Of a current, a rate, a rule and maybe a sharpness."""

RULE = Rule(1.0, True, False, ArcTan())
rules = st.builds(
    Rule,
    st.sampled_from([0.5, 1.0, 1.7]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([ArcTan(), ArcTan(0.7), Sigmoid(), Triangle(), Triangle(2.5)]),
)
sharpnesses = st.sampled_from([None, torch.tensor(1.0), torch.tensor(0.6), torch.tensor(2.3)])
rates = st.sampled_from([None, 0.5, 0.3, 0.95, torch.tensor(0.4), torch.tensor(0.8)])


def expanded(x: Tensor) -> Tensor:
    return x[:1].expand_as(x)


def batch_first(x: Tensor) -> Tensor:
    return x.transpose(0, 1).contiguous().transpose(0, 1)


def channels_last(x: Tensor) -> Tensor:
    return x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, x.shape[:2])


def spread(x: Tensor) -> Tensor:
    return torch.stack([x, x], -1)[..., 0]


class Step(torch.autograd.Function):
    """Heaviside with a surrogate's derivative."""

    @staticmethod
    def forward(ctx, x, surrogate):
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx, upstream):
        (x,) = ctx.saved_tensors
        return upstream * ctx.surrogate.derivative(x), None


def plain_loop(current: Tensor, rate: Rate, rule: Rule, sharpness: Sharpness = None) -> Tensor:
    """Spikes by a loop over timesteps that autograd differentiates."""
    v = torch.zeros_like(current[0])
    spikes = []
    for x in current:
        h = v + x if rate is None else v + (x - v) * rate
        distance = h - rule.threshold
        s = Step.apply(distance if sharpness is None else distance * sharpness, rule.surrogate)
        spikes.append(s)
        reset = s.detach() if rule.detach_reset else s
        v = h * (1 - reset) if rule.hard else h - rule.threshold * reset
    return torch.stack(spikes)


def gradients(
    function: Function, current: Tensor, rate: Rate, weight: Tensor, rule: Rule, sharpness: Sharpness = None
) -> list[Tensor]:
    """Spikes, and gradients of their weighted sum to the current and, where they are tensors, the rate and the
    sharpness.
    """
    inputs = [current := current.detach().requires_grad_()]
    if isinstance(rate, Tensor):
        inputs.append(rate := rate.detach().requires_grad_())
    if sharpness is not None:
        inputs.append(sharpness := sharpness.detach().requires_grad_())
    spikes = function(current, rate, rule, sharpness)
    return [spikes.detach(), *torch.autograd.grad((spikes * weight).sum(), inputs)]


def run(backend: Backend) -> Function:
    return lambda current, rate, rule, sharpness=None: IntegrateAndFire.apply(
        current, rate, sharpness, rule, backend
    )


def compare_with_fused(
    backend: Backend,
    current: Tensor,
    rate: Rate,
    weight: Tensor,
    rule: Rule,
    device: str = "cpu",
    sharpness: Sharpness = None,
) -> None:
    """The same spikes, nearly the same gradients; their sum over time where only `fused` gives equal shares."""
    moved = rate.to(device) if isinstance(rate, Tensor) else rate
    narrow = None if sharpness is None else sharpness.to(device)
    result = gradients(run(backend), current.to(device), moved, weight.to(device), rule, narrow)
    expected = gradients(run(fused), current, rate, weight, rule, sharpness)
    assert torch.equal(result[0].cpu(), expected[0])
    assert result[0].stride() == expected[0].stride()
    if is_constant(current) and not is_constant(result[1]):
        result[1], expected[1] = result[1].sum(0), expected[1].sum(0)
    for r, e in zip(result[1:], expected[1:], strict=True):
        assert r.dtype == e.dtype
        tolerance = {"rtol": 1e-4, "atol": 1e-4} if r.dtype == torch.float32 else {}
        if current.dtype == torch.bfloat16:
            # a last bit of a membrane in float32 may be one of what is kept of it
            tolerance = {"rtol": 2**-6, "atol": 2**-6}
        torch.testing.assert_close(r.cpu(), e, **tolerance)
