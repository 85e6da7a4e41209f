"""Memory layouts of sequences [T, ...]: time outermost, each timestep in one block."""

import torch
from torch import Tensor


def strides_like(step: Tensor) -> tuple[int, ...]:
    """Strides of a dense [time, *step] of the step's own memory format, which a tensor expanded over time hides."""
    return step.numel(), *torch.empty_like(step).stride()


def sequence_like(step: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Uninitialised [time, *step] of the step's own memory format."""
    return torch.empty_strided((steps, *step.shape), strides_like(step), dtype=dtype, device=step.device)


def arranged(sequence: Tensor, step: Tensor) -> Tensor:
    """The sequence with each timestep laid out as `step` is, or as a dense tensor like it; copied if need be.

    An expanded sequence stays expanded.
    """
    if sequence.stride()[1:] == strides_like(step)[1:]:
        return sequence
    steps = 1 if sequence.stride(0) == 0 else len(sequence)
    return sequence_like(step, steps, sequence.dtype).copy_(sequence[:steps]).expand_as(sequence)


def is_constant(sequence: Tensor) -> bool:
    """Whether several timesteps are all the same memory, as `x.expand(T, ...)` makes them."""
    return sequence.stride(0) == 0 and len(sequence) > 1


def shared(total: Tensor, steps: int) -> Tensor:
    """Gradient of a constant sequence: each timestep has an equal share of the total, not copied."""
    return (total / steps).expand(steps, *total.shape)
