"""What a card of a run says of its inputs."""

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from dpap.cli.hub import inputs_of
from dpap.data import DataConfig
from dpap.experiment.config import ExperimentConfig
from dpap.experiment.using.kept import Kept


@pytest.mark.parametrize(
    ("data", "shape", "expected"),
    [
        (
            DataConfig("mnist"),
            (1, 28, 28),
            "Images [batch, 1, 28, 28], floats: pixels from 0 to 255, divided by 255.",
        ),
        (
            DataConfig("mnist", normalise=True),
            (1, 28, 28),
            "255, **then normalised**: by channel, minus the mean (0.1307), over the deviation (0.3081).",
        ),
        (DataConfig("nmnist"), (2, 34, 34), ""),
    ],
)
def test_a_card_says_how_pixels_are_scaled_and_normalised(
    data: DataConfig, shape: tuple[int, ...], expected: str
) -> None:
    bundle: Any = SimpleNamespace(input_shape=shape)
    text = inputs_of(Kept(ExperimentConfig(data=data), nn.Identity(), bundle))
    assert text.endswith(expected) and bool(text) == bool(expected)
