import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpap.experiment.config import TrainingConfig
from dpap.experiment.schedule import learning_rate


def test_cosine_is_that_of_torch() -> None:
    training = TrainingConfig(epochs=5, learning_rate=0.3, schedule="cosine")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=35)
    for step in range(35):
        assert learning_rate(training, step, 7) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reference.step()


def test_warm_up_rises_evenly_to_the_peak() -> None:
    training = TrainingConfig(epochs=5, learning_rate=0.5, schedule="constant", warmup_epochs=1.0)
    rates = [learning_rate(training, step, 4) for step in range(20)]
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert set(rates[5:]) == {0.5}


@given(
    epochs=st.integers(1, 40),
    steps=st.integers(1, 30),
    schedule=st.sampled_from(["cosine", "onecycle", "constant"]),
)
def test_every_schedule_rises_then_falls_and_stays_within_the_peak(
    epochs: int, steps: int, schedule: str
) -> None:
    training = TrainingConfig(epochs=epochs, learning_rate=0.1, schedule=schedule)  # type: ignore[arg-type]
    rates = [learning_rate(training, step, steps) for step in range(epochs * steps)]
    assert all(0 < rate <= 0.1 + 1e-12 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_one_cycle_begins_low_and_ends_near_nothing() -> None:
    training = TrainingConfig(epochs=10, learning_rate=1.0, schedule="onecycle")
    assert learning_rate(training, 0, 10) == pytest.approx(1 / 25)
    assert learning_rate(training, 30, 10) == pytest.approx(1.0)
    assert learning_rate(training, 99, 10) < 1e-2
    assert math.isclose(learning_rate(training, 65, 10), (1 + 1e-5) / 2)
