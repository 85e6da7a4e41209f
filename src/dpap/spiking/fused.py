"""Integrate, fire and reset over all timesteps as one autograd function."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dpap.spiking import kernel
from dpap.spiking.layout import is_constant, sequence_like, shared
from dpap.spiking.surrogate import Surrogate


def integrate_and_fire(
    current: Float[Tensor, "time batch *unit"],
    rate: Float[Tensor, ""] | float | None,
    threshold: float,
    hard: bool,
    detach_reset: bool,
    surrogate: Surrogate,
) -> Float[Tensor, "time batch *unit"]:
    """Spikes of neurons that start at rest, v_0 = 0, and receive `current`.

        h_t = v_{t-1} + rate (x_t - v_{t-1}),  or  v_{t-1} + x_t  without a rate
        s_t = 1 if h_t >= threshold else 0
        v_t = h_t (1 - s_t)  if hard,  else  h_t - threshold s_t

    Backwards ds/dh is the surrogate's derivative at h - threshold; with `detach_reset` the s_t in v_t is a
    constant. Only h is kept for that. Main memory of a float32 unit sees 12 bytes a timestep each way:
    x in, h and s out; h and ds in, dx out. What lies between stays in cache where a timestep fits in it (32
    bytes of traffic forwards, 52 backwards with arctan), and on a GPU with Triton in registers. States of
    half-precision currents are float32. On a CPU a current that is constant over time, `x.expand(T, ...)`, is read
    once, and its gradient written once: in equal shares to all timesteps, whose sum is that of x.
    """
    if kernel.serves(current, surrogate):
        return kernel.integrate_and_fire(current, rate, threshold, hard, detach_reset, surrogate)
    spikes: Tensor = _IntegrateAndFire.apply(current, rate, threshold, hard, detach_reset, surrogate)
    return spikes


# The two halves of the step function, 1 if h >= threshold else 0 and its complement. They are written as
# floats at once: an intermediate bool tensor costs several times more on a CPU.
def _fired(h: Tensor, threshold: float, out: Tensor) -> Tensor:
    return torch.ge(h, threshold, out=out)


def _spared(h: Tensor, threshold: float, out: Tensor) -> Tensor:
    return torch.lt(h, threshold, out=out)


def charge(
    current: Tensor, rate: float | None, threshold: float, hard: bool, keep: bool
) -> tuple[Tensor, Tensor]:
    """Spikes, and the membranes before reset of all timesteps or, unless `keep`, of the last."""
    steps = len(current)
    dtype = torch.promote_types(current.dtype, torch.float32)
    gain = 1.0 if rate is None else rate
    v = torch.empty_like(current[0], dtype=dtype)
    spikes = sequence_like(v, steps, current.dtype)
    membrane = sequence_like(v, steps if keep else 1, dtype)
    # a comparison into another precision is slow, a copy into it is not
    wide = torch.empty_like(v) if dtype != current.dtype else None
    for t in range(steps):
        x, h, s = current[t].to(dtype), membrane[t % len(membrane)], spikes[t] if wide is None else wide
        if t == 0:
            torch.mul(x, gain, out=h)
        elif rate is None:
            torch.add(v, x, out=h)
        else:
            torch.lerp(v, x, gain, out=h)
        _fired(h, threshold, s)
        if wide is not None:
            spikes[t].copy_(wide)
        if t + 1 == steps:
            break
        if hard:
            torch.addcmul(h, h, s, value=-1, out=v)
        else:
            torch.sub(h, s, alpha=threshold, out=v)
    return spikes, membrane


class _IntegrateAndFire(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        rate: Tensor | float | None,
        threshold: float,
        hard: bool,
        detach_reset: bool,
        surrogate: Surrogate,
    ) -> Tensor:
        share = None if rate is None else float(rate)
        spikes, membrane = charge(current, share, threshold, hard, any(ctx.needs_input_grad))
        ctx.save_for_backward(membrane)
        ctx.rate = share
        ctx.learns_rate = ctx.needs_input_grad[1]
        ctx.rule = threshold, hard, detach_reset, surrogate
        ctx.current = current.dtype
        ctx.constant = is_constant(current)
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (membrane,) = ctx.saved_tensors
        threshold, hard, detach_reset, surrogate = ctx.rule
        gain, leak = (1.0, 1.0) if ctx.rate is None else (ctx.rate, 1 - ctx.rate)
        # dx_t = gain dh_t and dv_{t-1} = leak dh_t: dx of the step after carries dv, leak / gain of it
        # of a constant current only two timesteps are needed at once, and the sum
        d_current = torch.empty_like(membrane[:2] if ctx.constant else membrane)
        total = torch.zeros_like(membrane[0]) if ctx.constant else None
        slope, scratch, spared = (torch.empty_like(membrane[0]) for _ in range(3))
        d_rate = torch.zeros((), dtype=torch.float64, device=membrane.device)
        for t in reversed(range(len(membrane))):
            h, ds, dx = membrane[t], upstream[t].to(membrane.dtype), d_current[t % len(d_current)]
            if t + 1 == len(membrane):
                surrogate.chain_(torch.sub(h, threshold, out=dx), ds, scale=gain)
            else:
                later = d_current[(t + 1) % len(d_current)]
                if not detach_reset and hard:
                    ds = torch.addcmul(ds, later, h, value=-leak / gain, out=scratch)
                elif not detach_reset:
                    ds = torch.sub(ds, later, alpha=threshold * leak / gain, out=scratch)
                direct = surrogate.chain_(torch.sub(h, threshold, out=slope), ds, scale=gain)
                if hard:
                    torch.addcmul(direct, later, _spared(h, threshold, out=spared), value=leak, out=dx)
                else:
                    torch.add(direct, later, alpha=leak, out=dx)
            if total is not None:
                total.add_(dx)
            if ctx.learns_rate:
                # x_t - v_{t-1} = (h_t - v_{t-1}) / rate, and v_{t-1} follows from h_{t-1}
                rise = h
                if t > 0:
                    before = membrane[t - 1]
                    if hard:
                        v = torch.mul(before, _spared(before, threshold, out=spared), out=scratch)
                    else:
                        v = torch.sub(
                            before, _fired(before, threshold, out=spared), alpha=threshold, out=scratch
                        )
                    rise = torch.sub(h, v, out=scratch)
                d_rate += torch.sum(torch.mul(rise, dx, out=slope), dtype=torch.float64)
        d_rate /= gain**2
        if total is not None:
            d_current = shared(total, len(membrane))
        return (
            d_current.to(ctx.current) if ctx.needs_input_grad[0] else None,
            d_rate.to(membrane.dtype) if ctx.learns_rate else None,
            None,
            None,
            None,
            None,
        )
