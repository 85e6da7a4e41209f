"""Integrate, fire and reset as Triton kernels, whose time loop runs in registers.

They serve CUDA tensors where Triton is installed, and never synchronise. Checked against `fused` on an H100 (torch
2.11, Triton 3.6), and in Triton's interpreter where there is no GPU. Membranes are float32; currents may be half
precision. A float32 unit moves 12 bytes a timestep each way, 8 in evaluation, a bfloat16 one half of that: x in, h and
s out; h and ds in, dx out.
"""

import importlib.util
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from dpap.spiking.layout import arranged, kept_in, sequence_like
from dpap.spiking.rule import Rate, Rule, Sharpness, rate_tensor
from dpap.spiking.surrogate import Surrogate

BLOCK = 256  # units of one program; each thread of four warps holds two
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@lru_cache
def importable() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def serves(current: Tensor, surrogate: Surrogate) -> bool:
    """Whether the kernels can take this current and this surrogate gradient."""
    # a subclass that changes a surrogate's derivative must not inherit its formula
    known = "formula" in vars(type(surrogate))
    return current.is_cuda and current.dtype in DTYPES and known and importable()


def forward(current: Tensor, rate: Rate, rule: Rule, keep: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """See `integrate.Backend`."""
    current = arranged(current, current[0])
    spikes = sequence_like(current[0], len(current), current.dtype)
    membrane = sequence_like(current[0], len(current) if keep else 1, kept_in(current.dtype))
    share = rate_tensor(rate, torch.float32, current.device)
    units = current[0].numel()
    _launch(
        "forward",
        units,
        (current, spikes, membrane, share, units, current.stride(0), rule.threshold),
        {"STEPS": len(current), "LEAK": share is not None, "HARD": rule.hard, "KEEP": keep},
    )
    return spikes, membrane, share


def backward(
    membrane: Tensor,
    upstream: Tensor,
    rate: Tensor | None,
    sharpness: Sharpness,
    rule: Rule,
    learns_rate: bool,
    constant: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """See `integrate.Backend`; gradients of a constant current are of each timestep."""
    upstream = arranged(upstream, membrane[0])
    d_current = sequence_like(membrane[0], len(membrane), upstream.dtype)
    units = membrane[0].numel()
    narrow = rate_tensor(sharpness, torch.float32, membrane.device)
    # every program writes its own, where there is something to learn
    d_rates = torch.empty(_programs(units) if learns_rate else 1, device=membrane.device)
    d_narrow = d_rates if narrow is None else torch.empty(_programs(units), device=membrane.device)
    formula, parameter = rule.surrogate.formula()
    strided = upstream.stride(0)
    _launch(
        "backward",
        units,
        (
            membrane,
            upstream,
            d_current,
            d_rates,
            d_narrow,
            rate,
            narrow,
            units,
            strided,
            rule.threshold,
            parameter,
        ),
        {
            "STEPS": len(membrane),
            "LEAK": rate is not None,
            "HARD": rule.hard,
            "DETACH": rule.detach_reset,
            "LEARN": learns_rate,
            "SHARP": narrow is not None,
            "FORMULA": formula,
        },
    )
    # one sum for each program, added here: the same bits every time
    d_rate = None if rate is None or not learns_rate else d_rates.double().sum() / rate
    return d_current, d_rate, None if narrow is None else d_narrow.double().sum() / narrow


def _programs(units: int) -> int:
    return -(-units // BLOCK)


def _launch(name: str, units: int, arguments: tuple[Any, ...], constants: dict[str, Any]) -> None:
    if units:
        getattr(_kernels(), name)[(_programs(units),)](*arguments, **constants, BLOCK=BLOCK)


@lru_cache
def _kernels() -> ModuleType:
    from dpap.spiking import triton_source

    return triton_source
