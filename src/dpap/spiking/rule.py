"""What a spiking neuron does with its membrane."""

from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from dpap.spiking.surrogate import Surrogate

Rate: TypeAlias = Float[Tensor, ""] | float | None
"""1 / tau, the share of the distance to its input that a membrane covers in a timestep; None: no leak."""
Sharpness: TypeAlias = Float[Tensor, ""] | None
"""Factor of the distance from the threshold at which the surrogate is taken, where it is learned; None: 1."""


@dataclass(frozen=True)
class Rule:
    """When a neuron fires, how it is reset, and how gradients pass.

    Attributes:
        threshold: of the membrane.
        hard: whether the reset is to 0; else it is by the threshold.
        detach_reset: whether the reset is a constant to the gradient.
        surrogate: what replaces the derivative of the step.
    """

    threshold: float
    hard: bool
    detach_reset: bool
    surrogate: Surrogate


def rate_tensor(rate: Rate, dtype: torch.dtype, device: torch.device) -> Float[Tensor, ""] | None:
    """The rate on a device, as a constant to the gradient."""
    if rate is None:
        return None
    if isinstance(rate, Tensor):
        return rate.detach().to(device, dtype)
    return torch.full((), rate, dtype=dtype, device=device)
