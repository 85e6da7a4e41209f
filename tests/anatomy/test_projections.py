"""Sizes and axes of weight layers are those that torch gives them."""

import pytest
import torch
from torch import nn

from dpap.anatomy.projections import projection_kind, size_of


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(6, 4),
        nn.Conv1d(6, 4, 3),
        nn.Conv2d(6, 4, 3, groups=2),
        nn.Conv3d(6, 4, 1),
        nn.ConvTranspose1d(6, 4, 3),
        nn.ConvTranspose2d(6, 4, 3, groups=2),
        nn.ConvTranspose3d(6, 4, 1),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_units_and_features_lie_on_the_activity_axis(layer: nn.Module) -> None:
    kind = projection_kind(layer)
    assert kind is not None and size_of(layer) == (4, 6)
    space = [5] * (-kind.activity_axis - 1)
    assert layer(torch.rand(2, 6, *space)).shape[kind.activity_axis] == 4


def test_other_modules_are_no_projections() -> None:
    assert projection_kind(nn.BatchNorm2d(3)) is None
    with pytest.raises(TypeError, match="Linear or convolution layer; got ReLU"):
        size_of(nn.ReLU())
