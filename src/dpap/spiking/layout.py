"""Memory layouts of sequences [T, ...]: time outermost, each timestep in one block."""

import torch
from torch import Tensor


def sequence_like(step: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Uninitialised [time, *step] of the step's own memory format, which a tensor expanded over time hides."""
    strides = torch.empty_like(step).stride()
    return torch.empty_strided(
        (steps, *step.shape), (step.numel(), *strides), dtype=dtype, device=step.device
    )


def arranged(sequence: Tensor, step: Tensor) -> Tensor:
    """The sequence with each timestep laid out as `step` is, or as a dense tensor like it; copied if need be.

    An expanded sequence stays expanded.
    """
    strides = torch.empty_like(step).stride()
    if sequence.stride()[1:] == strides:
        return sequence
    steps = 1 if sequence.stride(0) == 0 else len(sequence)
    copy = torch.empty_strided(
        (steps, *step.shape), (step.numel(), *strides), dtype=sequence.dtype, device=sequence.device
    )
    return copy.copy_(sequence[:steps]).expand_as(sequence)


def is_constant(sequence: Tensor) -> bool:
    """Whether all of several timesteps are one and the same in memory, as `x.expand(T, ...)` makes them."""
    return sequence.stride(0) == 0 and len(sequence) > 1


def shared(total: Tensor, steps: int) -> Tensor:
    """Gradient of a constant sequence: each timestep has an equal share of the total, none a memory of its own."""
    return (total / steps).expand(steps, *total.shape)
