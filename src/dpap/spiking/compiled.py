"""Integrate, fire and reset in one pass each way, fused over time by torch.compile; needs a C++ compiler on a CPU.

Compiled once for each number of timesteps, rule and precision; the number of units is left open, so that a network
which shrinks compiles nothing anew.
"""

import inspect
import os
import shutil
from collections.abc import Callable
from functools import cache, lru_cache
from types import FunctionType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dpap.spiking.fused import charge
from dpap.spiking.layout import arranged, is_constant, shared
from dpap.spiking.surrogate import Surrogate


@lru_cache
def possible(device: torch.device) -> bool:
    """Whether torch.compile finds what it needs: a C++ compiler for a CPU."""
    return device.type == "cpu" and any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++")))


def integrate_and_fire(
    current: Float[Tensor, "time batch *unit"],
    rate: Float[Tensor, ""] | float | None,
    threshold: float,
    hard: bool,
    detach_reset: bool,
    surrogate: Surrogate,
) -> Float[Tensor, "time batch *unit"]:
    """As `dpap.spiking.fused.integrate_and_fire`; the 12 bytes a timestep each way are all that is moved."""
    spikes: Tensor = _IntegrateAndFire.apply(current, rate, threshold, hard, detach_reset, surrogate)
    return spikes


def forward(
    current: Tensor, rate: Tensor | None, threshold: float, hard: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Spikes of currents [T, units], and the membranes before reset."""
    v = torch.zeros_like(current[0], dtype=dtype)
    spikes, membrane = [], []
    for each in current.unbind():
        x = each.to(dtype)
        h = v + x if rate is None else v + (x - v) * rate
        fired = h >= threshold
        v = torch.where(fired, 0.0 if hard else h - threshold, h)
        spikes.append(fired.to(current.dtype))
        membrane.append(h)
    return torch.stack(spikes), torch.stack(membrane)


def backward(
    membrane: Tensor,
    upstream: Tensor,
    rate: Tensor | None,
    threshold: float,
    hard: bool,
    detach_reset: bool,
    surrogate: Surrogate,
    learns_rate: bool,
    constant: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of the currents [T, units], of a constant one their sum [units]; and each unit's share of that of
    the rate (zeros where it is fixed).
    """
    d_v = torch.zeros_like(membrane[0])
    d_rate = torch.zeros_like(membrane[0])
    d_current: list[Tensor] = []
    total = torch.zeros_like(membrane[0])
    for t in reversed(range(len(membrane))):
        h, d_s = membrane[t], upstream[t].to(membrane.dtype)
        if not detach_reset:
            d_s = d_s - d_v * (h if hard else threshold)
        d_h = d_s * surrogate.derivative(h - threshold) + (
            torch.where(h >= threshold, 0.0, d_v) if hard else d_v
        )
        d_x = d_h if rate is None else d_h * rate
        d_v = d_h if rate is None else d_h - d_x
        if constant:
            total = total + d_x
        else:
            d_current.append(d_x.to(upstream.dtype))
        if learns_rate:
            rise = h
            if t > 0:
                earlier = membrane[t - 1]
                rise = h - torch.where(earlier >= threshold, 0.0 if hard else earlier - threshold, earlier)
            d_rate = d_rate + rise * d_h
    return total if constant else torch.stack(d_current[::-1]), d_rate


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
        dtype = torch.promote_types(current.dtype, torch.float32)
        share = None
        if rate is not None:
            share = torch.as_tensor(rate, dtype=dtype, device=current.device).detach()
        ctx.constant = is_constant(current)
        if ctx.constant:
            # each timestep reads the same: inductor would write each out in terms of all before it
            spikes, membrane = charge(current, None if rate is None else float(rate), threshold, hard, True)
            spikes, membrane = _rows(spikes, current[0]), _rows(membrane, current[0])
        else:
            rows = _rows(current, current[0])
            spikes, membrane = _compiled(forward, rows, share, threshold, hard, dtype)
        ctx.layout = current.shape, (current[0].numel(), *torch.empty_like(current[0]).stride())
        ctx.save_for_backward(membrane, share)
        ctx.learns_rate = ctx.needs_input_grad[1]
        ctx.rule = threshold, hard, detach_reset, surrogate
        return spikes.as_strided(*ctx.layout)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        membrane, share = ctx.saved_tensors
        shape, strides = ctx.layout
        step = torch.empty_strided(shape[1:], strides[1:], device="meta")
        d_current, d_rates = _compiled(
            backward, membrane, _rows(upstream, step), share, *ctx.rule, ctx.learns_rate, ctx.constant
        )
        d_rate = None
        if ctx.learns_rate and share is not None:
            d_rate = (d_rates.sum(dtype=torch.float64) / share).to(share.dtype)
        if ctx.constant:
            d_current = shared(d_current.as_strided(shape[1:], strides[1:]), shape[0]).to(upstream.dtype)
        else:
            d_current = d_current.as_strided(shape, strides)
        return d_current, d_rate, None, None, None, None


def _rows(sequence: Tensor, step: Tensor) -> Tensor:
    """[T, ...] as [T, units] in the order in which a step like that lies in memory."""
    if sequence.stride(0) == 0:
        sequence = sequence.contiguous()
    rows = arranged(sequence, step).as_strided((len(sequence), step.numel()), (step.numel(), 1))
    return rows.detach()  # no view of anything, whose shape would be a reason to compile anew


def _compiled(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function of these arguments, compiled for all of them but the number of units."""
    case = tuple(
        (each.dtype, each.dim(), len(each) if each.dim() else 1) if isinstance(each, Tensor) else each
        for each in arguments
    )
    return _compile(function, case)(*arguments)


@cache
def _compile(function: Callable[..., Any], case: tuple[Any, ...]) -> Callable[..., Any]:
    """Compiled from a copy: torch.compile counts what it made of each code object, and after 8 gives up on it.

    Of the function itself, without the checks of shapes that tests wrap around it.
    """
    plain = inspect.unwrap(function)
    return torch.compile(FunctionType(plain.__code__.replace(), plain.__globals__), dynamic=True)
