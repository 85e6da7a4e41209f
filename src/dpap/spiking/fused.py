"""Integrate, fire and reset by torch's operations, each into memory that is given; serves every device.

What lies between x, h and s stays in cache where a timestep fits in it: 32 bytes of traffic forwards, 52 backwards
with arctan.
"""

import torch
from torch import Tensor

from dpap.spiking.layout import computed_in, keep_membrane, kept_in, membrane_of, sequence_like, shared
from dpap.spiking.rule import Rate, Rule, Sharpness


# The two halves of the step function, 1 if h >= threshold else 0 and its complement. They are written as
# floats at once: an intermediate bool tensor costs several times more on a CPU.
def _fired(h: Tensor, threshold: float, out: Tensor) -> Tensor:
    return torch.ge(h, threshold, out=out)


def _spared(h: Tensor, threshold: float, out: Tensor) -> Tensor:
    return torch.lt(h, threshold, out=out)


def forward(current: Tensor, rate: Rate, rule: Rule, keep: bool) -> tuple[Tensor, Tensor, float | None]:
    """See `integrate.Backend`; unless `keep`, the membranes are those of the last timestep."""
    steps = len(current)
    dtype, stored = computed_in(current.dtype), kept_in(current.dtype)
    rate = None if rate is None else float(rate)
    gain = 1.0 if rate is None else rate
    v = torch.empty_like(current[0], dtype=dtype)
    spikes = sequence_like(v, steps, current.dtype)
    membrane = sequence_like(v, steps if keep else 1, stored)
    narrow = torch.empty_like(v) if stored != dtype else None
    # a comparison into another precision is slow, a copy into it is not
    wide = torch.empty_like(v) if dtype != current.dtype else None
    for t in range(steps):
        x, s = current[t].to(dtype), spikes[t] if wide is None else wide
        h = membrane[t % len(membrane)] if narrow is None else narrow
        if t == 0:
            torch.mul(x, gain, out=h)
        elif rate is None:
            torch.add(v, x, out=h)
        else:
            torch.lerp(v, x, gain, out=h)
        _fired(h, rule.threshold, s)
        if wide is not None:
            spikes[t].copy_(wide)
        if t + 1 < steps and rule.hard:
            torch.addcmul(h, h, s, value=-1, out=v)
        elif t + 1 < steps:
            torch.sub(h, s, alpha=rule.threshold, out=v)
        if narrow is not None and keep:
            keep_membrane(h, rule.threshold, membrane[t])
    return spikes, membrane, rate


def backward(
    membrane: Tensor,
    upstream: Tensor,
    rate: float | None,
    sharpness: Sharpness,
    rule: Rule,
    learns_rate: bool,
    constant: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """See `integrate.Backend`."""
    threshold = rule.threshold
    narrow = 1.0 if sharpness is None else float(sharpness)
    gain, leak = (1.0, 1.0) if rate is None else (rate, 1 - rate)
    # dx_t = gain dh_t and dv_{t-1} = leak dh_t: dx of the step after carries dv, leak / gain of it
    # only two timesteps are needed at once: of a constant current the sum is, and half precision is copied
    like = torch.empty_like(membrane[0], dtype=computed_in(membrane.dtype))
    copied = upstream.dtype != like.dtype
    d_steps = sequence_like(like, 2 if constant or copied else len(membrane), like.dtype)
    d_current = sequence_like(like, len(membrane), upstream.dtype) if copied and not constant else d_steps
    total = torch.zeros_like(like) if constant else None
    slope, scratch, spared, whole = (torch.empty_like(like) for _ in range(4))
    d_rate, d_narrow = torch.zeros((2,), dtype=torch.float64, device=membrane.device)

    def chained(h: Tensor, ds: Tensor, out: Tensor) -> Tensor:
        """`gain` times ds/dh times `ds`."""
        x = torch.sub(h, threshold, out=out)
        return rule.surrogate.chain_(x if sharpness is None else x.mul_(narrow), ds, scale=gain * narrow)

    for t in reversed(range(len(membrane))):
        h, ds = membrane_of(membrane[t], threshold, whole), upstream[t].to(like.dtype)
        dx = d_steps[t % len(d_steps)]
        if t + 1 == len(membrane):
            direct = chained(h, ds, dx)
        else:
            later = d_steps[(t + 1) % len(d_steps)]
            if not rule.detach_reset and rule.hard:
                ds = torch.addcmul(ds, later, h, value=-leak / gain, out=scratch)
            elif not rule.detach_reset:
                ds = torch.sub(ds, later, alpha=threshold * leak / gain, out=scratch)
            direct = chained(h, ds, slope)
            if rule.hard:
                torch.addcmul(direct, later, _spared(h, threshold, out=spared), value=leak, out=dx)
            else:
                torch.add(direct, later, alpha=leak, out=dx)
        if total is not None:
            total.add_(dx)
        elif copied:
            d_current[t].copy_(dx)
        if sharpness is not None:
            # the distance times the surrogate's derivative is that of the smooth step in the logarithm of the sharpness
            distance = torch.sub(h, threshold, out=scratch)
            d_narrow += torch.sum(distance.mul_(direct), dtype=torch.float64)
        if learns_rate:
            # x_t - v_{t-1} = (h_t - v_{t-1}) / rate, and v_{t-1} follows from h_{t-1}
            rise = h
            if t > 0:
                before = membrane_of(membrane[t - 1], threshold, slope)
                if rule.hard:
                    v = torch.mul(before, _spared(before, threshold, out=spared), out=scratch)
                else:
                    fired = _fired(before, threshold, out=spared)
                    v = torch.sub(before, fired, alpha=threshold, out=scratch)
                rise = torch.sub(h, v, out=scratch)
            d_rate += torch.sum(torch.mul(rise, dx, out=slope), dtype=torch.float64)
    if total is not None:
        d_current = shared(total, len(membrane))
    d_sharpness = None if sharpness is None else d_narrow / (gain * narrow)
    return d_current.to(upstream.dtype), d_rate / gain**2, d_sharpness
