"""Graded activity: values that are all whole multiples of one step, as spikes and counts of spikes are."""

import math

import torch
from torch import Tensor

LEVELS = 1024
"""Values of more steps than this are analogue."""


def common_step(values: Tensor) -> float:
    """The largest step of which all values are whole multiples, by Euclid's algorithm.

    Returns:
        1.0 of spikes, 0.25 of spikes averaged over 2 x 2; 0.0 where every value is 0; nan where there is none that
        makes at most `LEVELS` of the largest, as in analogue activity.
    """
    left = values.detach().abs().flatten()
    left = left[left > 0].to(torch.promote_types(left.dtype, torch.float32))
    if not len(left):
        return 0.0
    largest, step = float(left.max()), float(left.min())
    rounding = 4 * largest * torch.finfo(values.dtype if values.is_floating_point() else left.dtype).eps
    while step > rounding and largest <= LEVELS * step:
        over = left.remainder(step)
        over = torch.minimum(over, step - over)
        over = over[over > rounding]
        if not len(over):
            return step
        step = float(over.min())
    return math.nan


def joint_step(one: float, other: float) -> float:
    """The step of two sets of values together, from the step of each."""
    if math.isnan(one) or math.isnan(other):
        return math.nan
    return common_step(torch.tensor([one, other], dtype=torch.float32))
