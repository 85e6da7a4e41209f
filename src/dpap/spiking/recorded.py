"""Integrate, fire and reset as plain operations, for programs that torch.export or torch.jit.trace records.

The same spikes, bit for bit, as `fused` on a CPU; what is recorded has no surrogate gradient, and no gradient passes
its spikes.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from dpap.spiking.rule import Rate, Rule

_watched = 0
"""Within how many `watched`; a plain number, which torch.compile can read without breaking its graph."""


def recording() -> bool:
    """Whether operations are recorded now, of which none can be stored that is written in Python."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing() or _watched > 0


@contextmanager
def watched() -> Iterator[None]:
    """Run as if recorded, for what watches the operations itself."""
    global _watched
    _watched += 1
    try:
        yield
    finally:
        _watched -= 1


def forward(current: Tensor, rate: Rate, rule: Rule) -> Tensor:
    """Spikes of currents [T, B, ...], as `integrate_and_fire` gives them."""
    dtype = torch.promote_types(current.dtype, torch.float32)
    spikes: list[Tensor] = []
    v: Tensor | None = None
    # a number of timesteps that a trace would take for a tensor is never asked for
    for each in current.unbind():
        x = each.to(dtype)
        if v is None:
            h = x if rate is None else x * rate
        else:
            h = v + x if rate is None else torch.lerp(v, x, rate)
        fired = h >= rule.threshold
        v = torch.where(fired, 0.0 if rule.hard else h - rule.threshold, h)
        spikes.append(fired.to(current.dtype))
    return torch.stack(spikes)
