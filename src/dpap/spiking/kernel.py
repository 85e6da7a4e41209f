"""Integrate, fire and reset as Triton kernels, whose time loop runs in registers.

Checked against the plain loop in Triton's interpreter, and never yet on a GPU. It is used of CUDA tensors where
Triton can be imported. Membranes are float32; currents may be half precision.
"""

import importlib.util
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dpap.spiking.layout import arranged, sequence_like
from dpap.spiking.surrogate import ArcTan, Sigmoid, Surrogate, Triangle

BLOCK = 256  # units of one program; each thread of four warps holds two
SHAPES: dict[type[Surrogate], int] = {ArcTan: 0, Sigmoid: 1, Triangle: 2}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@lru_cache
def importable() -> bool:
    """Whether Triton is there."""
    return importlib.util.find_spec("triton") is not None


def serves(current: Tensor, surrogate: Surrogate) -> bool:
    """Whether the kernels can take this current and this surrogate gradient."""
    return current.is_cuda and current.dtype in DTYPES and type(surrogate) in SHAPES and importable()


def integrate_and_fire(
    current: Float[Tensor, "time batch *unit"],
    rate: Float[Tensor, ""] | float | None,
    threshold: float,
    hard: bool,
    detach_reset: bool,
    surrogate: Surrogate,
) -> Float[Tensor, "time batch *unit"]:
    """As `dpap.spiking.fused.integrate_and_fire`, without a synchronisation.

    A float32 unit moves 12 bytes a timestep each way, 8 in evaluation: x in, h and s out; h and ds in, dx out.
    """
    spikes: Tensor = _IntegrateAndFire.apply(current, rate, threshold, hard, detach_reset, surrogate)
    return spikes


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
        kept = any(ctx.needs_input_grad)
        current = arranged(current, current[0])
        spikes = sequence_like(current[0], len(current), current.dtype)
        membrane = sequence_like(current[0], len(current) if kept else 1, torch.float32)
        if isinstance(rate, Tensor):
            share = rate.detach().to(current.device, torch.float32)
        else:
            share = torch.full((), 1.0 if rate is None else rate, device=current.device)
        units = current[0].numel()
        _launch(
            "forward",
            units,
            (current, spikes, membrane, share, units, current.stride(0), threshold),
            {"STEPS": len(current), "LEAK": rate is not None, "HARD": hard, "KEEP": kept},
        )
        ctx.save_for_backward(membrane, share)
        ctx.leaks, ctx.learns_rate = rate is not None, ctx.needs_input_grad[1]
        ctx.rule = threshold, hard, detach_reset, surrogate
        ctx.current = current.dtype
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        membrane, share = ctx.saved_tensors
        threshold, hard, detach_reset, surrogate = ctx.rule
        upstream = arranged(upstream, membrane[0])
        d_current = sequence_like(membrane[0], len(membrane), ctx.current)
        units = membrane[0].numel()
        d_rates = torch.zeros(_programs(units) if ctx.learns_rate else 1, device=membrane.device)
        parameter = surrogate.width if isinstance(surrogate, Triangle) else surrogate.alpha
        _launch(
            "backward",
            units,
            (membrane, upstream, d_current, d_rates, share, units, upstream.stride(0), threshold, parameter),
            {
                "STEPS": len(membrane),
                "LEAK": ctx.leaks,
                "HARD": hard,
                "DETACH": detach_reset,
                "LEARN": ctx.learns_rate,
                "SHAPE": SHAPES[type(surrogate)],
            },
        )
        # one sum for each program, added here: the same bits every time
        d_rate = (d_rates.double().sum() / share).float() if ctx.learns_rate else None
        return d_current if ctx.needs_input_grad[0] else None, d_rate, None, None, None, None


def _programs(units: int) -> int:
    return -(-units // BLOCK)


def _launch(name: str, units: int, arguments: tuple[Any, ...], constants: dict[str, Any]) -> None:
    if units:
        getattr(_kernels(), name)[(_programs(units),)](*arguments, **constants, BLOCK=BLOCK)


@lru_cache
def _kernels() -> ModuleType:
    from dpap.spiking import triton_source

    return triton_source
