import pytest
import torch

from dpap.experiment.config import TrainingConfig
from dpap.experiment.losses import loss_function, rate_mse


def test_rate_mse_is_the_mean_squared_distance_to_one_hot() -> None:
    rates = torch.tensor([[0.5, 0.0], [0.25, 1.0]])
    by_hand = ((0.5 - 1) ** 2 + 0 + 0.25**2 + 0) / 4
    assert rate_mse(rates, torch.tensor([0, 1])).item() == pytest.approx(by_hand)


def test_cross_entropy_smooths_labels() -> None:
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    log = logits.log_softmax(1)
    target = torch.full((5, 4), 0.2 / 4)
    target[torch.arange(5), labels] += 0.8
    smoothed = loss_function(TrainingConfig(label_smoothing=0.2))(logits, labels)
    assert torch.allclose(smoothed, -(target * log).sum(1).mean())
    assert loss_function(TrainingConfig(loss="rate_mse")) is rate_mse
