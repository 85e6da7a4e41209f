"""Integrate, fire and reset over all timesteps as one autograd function, which three modules compute; or `recorded`."""

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dpap.spiking import compiled, fused, kernel, recorded
from dpap.spiking.layout import computed_in, is_constant
from dpap.spiking.rule import Rate, Rule, Sharpness


@runtime_checkable
class Backend(Protocol):
    """`fused`, `compiled` or `kernel`."""

    def forward(self, current: Tensor, rate: Rate, rule: Rule, keep: bool) -> tuple[Tensor, Tensor, Any]:
        """Spikes; the membranes before reset as `layout` keeps them, of all timesteps if `keep`; the rate for
        `backward`.
        """

    def backward(
        self,
        membrane: Tensor,
        upstream: Tensor,
        rate: Any,
        sharpness: Sharpness,
        rule: Rule,
        learns_rate: bool,
        constant: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Gradients of the current, which may be `constant` over time, and of the rate and the sharpness where they are
        learned.
        """


def integrate_and_fire(
    current: Float[Tensor, "time batch *unit"],
    rate: Rate,
    rule: Rule,
    *,
    sharpness: Sharpness = None,
    compile_steps: bool = False,
) -> Float[Tensor, "time batch *unit"]:
    """Spikes of neurons that start at rest, v_0 = 0, and receive `current`.

        h_t = v_{t-1} + rate (x_t - v_{t-1}),  or  v_{t-1} + x_t  without a rate
        s_t = 1 if h_t >= threshold else 0
        v_t = h_t (1 - s_t)  if hard,  else  h_t - threshold s_t

    Backwards ds/dh is the surrogate's derivative at h - threshold, or with a learned `sharpness` k times that at k
    times this distance, and the gradient of k is that of the smooth step; with `detach_reset` the s_t in v_t is a
    constant. Only h is kept for that, of bfloat16 currents in bfloat16. A float32 unit moves 12 bytes a timestep each
    way through main memory: x in, h and s out; h and ds in, dx out. Timesteps of half-precision currents are computed
    in float32. On a CPU a current that is constant over time, `x.expand(T, ...)`, is read once, and its gradient
    written once: in equal shares to all timesteps, whose sum is that of x.
    """
    if recorded.recording():
        return recorded.forward(current, rate, rule)
    spikes: Tensor = IntegrateAndFire.apply(
        current, rate, sharpness, rule, _backend(current, rule, compile_steps)
    )
    return spikes


def _backend(current: Tensor, rule: Rule, compile_steps: bool) -> Backend:
    if compile_steps and compiled.possible(current.device):
        return compiled
    return kernel if kernel.serves(current, rule.surrogate) else fused


class IntegrateAndFire(torch.autograd.Function):
    """Takes a current, a rate, a sharpness, a rule and a backend."""

    @staticmethod
    def forward(
        ctx: Any, current: Tensor, rate: Rate, sharpness: Sharpness, rule: Rule, backend: Backend
    ) -> Tensor:
        """Spikes."""
        spikes, membrane, rate = backend.forward(current, rate, rule, any(ctx.needs_input_grad))
        learned = rate if isinstance(rate, Tensor) else None
        ctx.save_for_backward(membrane, learned, sharpness)
        ctx.fixed_rate = rate if learned is None else None
        ctx.rule, ctx.backend, ctx.constant = rule, backend, is_constant(current)
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the current, of the rate and of the sharpness."""
        membrane, rate, sharpness = ctx.saved_tensors
        learns_current, learns_rate, learns_sharpness, *_ = ctx.needs_input_grad
        d_current, d_rate, d_sharpness = ctx.backend.backward(
            membrane,
            upstream,
            ctx.fixed_rate if rate is None else rate,
            sharpness,
            ctx.rule,
            learns_rate,
            ctx.constant,
        )
        return (
            d_current if learns_current else None,
            d_rate.to(computed_in(membrane.dtype)) if learns_rate else None,
            d_sharpness.to(sharpness) if learns_sharpness else None,
            None,
            None,
        )
