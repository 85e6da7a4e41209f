"""Memory layouts of sequences [T, ...]: time outermost, each timestep in one block; and how membranes are kept.

Of a bfloat16 current a membrane h is kept in bfloat16 too, as h - threshold: no precision is lost near the threshold,
where gradients depend on it, and its sign, so that both passes agree on what fired. (float16 would overflow.)
"""

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


def computed_in(current: torch.dtype) -> torch.dtype:
    """Precision in which the timesteps of such a current are computed."""
    return torch.promote_types(current, torch.float32)


def kept_in(current: torch.dtype) -> torch.dtype:
    """Precision in which its membranes are kept for the backward pass."""
    return current if current == torch.bfloat16 else computed_in(current)


def keep_membrane(h: Tensor, threshold: float, out: Tensor) -> None:
    """Write a membrane, which is lost, as it is kept in bfloat16."""
    out.copy_(h.sub_(threshold))


def membrane_of(kept: Tensor, threshold: float, out: Tensor) -> Tensor:
    """The membrane of what was kept, in `out` where it was in bfloat16."""
    return kept if kept.dtype != torch.bfloat16 else out.copy_(kept).add_(threshold)
