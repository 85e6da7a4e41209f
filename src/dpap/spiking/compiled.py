"""Integrate, fire and reset in one pass each way, fused over time by torch.compile; needs a C++ compiler on a CPU.

The 12 bytes a timestep each way are all that is moved. Compiled once for each number of timesteps, rule and precision;
the number of units is left open, so that a network which shrinks compiles nothing anew.
"""

import inspect
import os
import shutil
from collections.abc import Callable
from functools import cache, lru_cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from dpap.spiking import fused
from dpap.spiking.layout import (
    arranged,
    computed_in,
    is_constant,
    kept_in,
    shared,
    strides_like,
)
from dpap.spiking.rule import Rate, Rule, Sharpness, rate_tensor


@lru_cache
def possible(device: torch.device) -> bool:
    """Whether torch.compile finds the C++ compiler that it needs for a CPU."""
    return device.type == "cpu" and any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++")))


def forward(current: Tensor, rate: Rate, rule: Rule, keep: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """See `integrate.Backend`."""
    dtype = computed_in(current.dtype)
    share = rate_tensor(rate, dtype, current.device)
    if is_constant(current):
        # each timestep reads the same: inductor would write each out in terms of all before it
        spikes, membrane, _ = fused.forward(current, rate, rule, keep)
        return spikes, membrane, share
    rows = _rows(current, current[0])
    spikes, membrane = _compiled(_forward, rows, share, rule.threshold, rule.hard)
    layout = current.shape, strides_like(current[0])
    return spikes.as_strided(*layout), membrane.as_strided(*layout), share


def backward(
    membrane: Tensor,
    upstream: Tensor,
    rate: Tensor | None,
    sharpness: Sharpness,
    rule: Rule,
    learns_rate: bool,
    constant: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """See `integrate.Backend`."""
    step = membrane[0]
    rows = _rows(membrane, step), _rows(upstream, step)
    narrow = rate_tensor(sharpness, computed_in(membrane.dtype), membrane.device)
    d_current, d_rates, d_narrow = _compiled(_backward, *rows, rate, narrow, rule, learns_rate, constant)
    d_sharpness = None if d_narrow is None else d_narrow.sum(dtype=torch.float64) / narrow
    d_rate = None if d_rates is None else d_rates.sum(dtype=torch.float64) / rate
    if constant:
        total = d_current.as_strided(step.shape, step.stride())
        return shared(total, len(membrane)).to(upstream.dtype), d_rate, d_sharpness
    return d_current.as_strided(membrane.shape, membrane.stride()), d_rate, d_sharpness


def _forward(current: Tensor, rate: Tensor | None, threshold: float, hard: bool) -> tuple[Tensor, Tensor]:
    """Spikes of currents [T, units], and the membranes before reset as they are kept."""
    dtype, stored = computed_in(current.dtype), kept_in(current.dtype)
    v = torch.zeros_like(current[0], dtype=dtype)
    spikes, membrane = [], []
    for each in current.unbind():
        x = each.to(dtype)
        h = v + x if rate is None else v + (x - v) * rate
        fired = h >= threshold
        v = torch.where(fired, 0.0 if hard else h - threshold, h)
        spikes.append(fired.to(current.dtype))
        membrane.append((h - threshold).to(stored) if stored != dtype else h)
    return torch.stack(spikes), torch.stack(membrane)


def _backward(
    membrane: Tensor,
    upstream: Tensor,
    rate: Tensor | None,
    sharpness: Sharpness,
    rule: Rule,
    learns_rate: bool,
    constant: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of the currents [T, units], of a constant one their sum [units]; and each unit's share of those of
    the rate, where it is learned, and of the logarithm of the sharpness.
    """
    threshold = rule.threshold
    d_v, d_rate, d_narrow, total = (
        torch.zeros_like(membrane[0], dtype=computed_in(membrane.dtype)) for _ in range(4)
    )
    d_current: list[Tensor] = []
    for t in reversed(range(len(membrane))):
        h, d_s = _membrane(membrane[t], threshold), upstream[t].to(d_v.dtype)
        if not rule.detach_reset:
            d_s = d_s - d_v * (h if rule.hard else threshold)
        if sharpness is None:
            direct = d_s * rule.surrogate.derivative(h - threshold)
        else:
            direct = d_s * rule.surrogate.derivative((h - threshold) * sharpness) * sharpness
            d_narrow = d_narrow + direct * (h - threshold)
        d_h = direct + (torch.where(h >= threshold, 0.0, d_v) if rule.hard else d_v)
        d_x = d_h if rate is None else d_h * rate
        d_v = d_h if rate is None else d_h - d_x
        if constant:
            total = total + d_x
        else:
            d_current.append(d_x.to(upstream.dtype))
        if learns_rate:
            rise = h
            if t > 0:
                earlier = _membrane(membrane[t - 1], threshold)
                rise = h - torch.where(
                    earlier >= threshold, 0.0 if rule.hard else earlier - threshold, earlier
                )
            d_rate = d_rate + rise * d_h
    return (
        total if constant else torch.stack(d_current[::-1]),
        d_rate if learns_rate and rate is not None else None,
        None if sharpness is None else d_narrow,
    )


def _membrane(kept: Tensor, threshold: float) -> Tensor:
    """The membrane of what was kept."""
    return kept if kept.dtype != torch.bfloat16 else kept.float() + threshold


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
