"""Activity traces: equations (1), (2), (12) and (13)."""

import torch
from jaxtyping import Float
from torch import Tensor


def population_activity(output: Float[Tensor, "time batch unit *space"]) -> Float[Tensor, "time batch unit"]:
    """Output of each unit, summed over its map: the o of (2) and (13); fully connected output stays as it is.

    Half precision is summed in single precision, since a map holds more spikes than it can count.
    """
    dtype = torch.promote_types(output.dtype, torch.float32)
    if output.dim() == 3:
        return output.to(dtype)
    return output.flatten(3).sum(-1, dtype=dtype)


def trace(counts: Float[Tensor, "time batch *unit"], decay: float) -> Float[Tensor, "batch *unit"]:
    """Final trace S(T) = sum_t decay^(T-1-t) o(t), the closed form of (1) and (2).

    With a single timestep it is the activation itself: the trace of a non-spiking network, (12) and (13).
    """
    age = torch.arange(len(counts) - 1, -1, -1, dtype=counts.dtype, device=counts.device)
    with torch.autocast(counts.device.type, enabled=False):
        return torch.tensordot(decay**age, counts, dims=1)


def running_traces(
    counts: Float[Tensor, "time batch *unit"], decay: float
) -> Float[Tensor, "time batch *unit"]:
    """Traces S^{0..t} after every timestep t, as (8) needs them; the last one equals `trace`."""
    steps = torch.arange(len(counts), dtype=counts.dtype, device=counts.device)
    age = steps[:, None] - steps
    weights = torch.where(age >= 0, decay ** age.clamp(min=0), 0)
    with torch.autocast(counts.device.type, enabled=False):
        return torch.tensordot(weights, counts, dims=1)
