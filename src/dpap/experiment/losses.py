"""The losses that training minimises."""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dpap.experiment.config import TrainingConfig

Loss = Callable[[Float[Tensor, "batch classes"], Int[Tensor, " batch"]], Float[Tensor, ""]]


def rate_mse(rates: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Mean squared distance of the output neurons' firing rates to one-hot labels."""
    return F.mse_loss(rates, F.one_hot(labels, rates.shape[1]).to(rates.dtype))


def loss_function(training: TrainingConfig) -> Loss:
    """The loss that the configuration names."""
    if training.loss == "rate_mse":
        return rate_mse
    return lambda logits, labels: F.cross_entropy(logits, labels, label_smoothing=training.label_smoothing)
