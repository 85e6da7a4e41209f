import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

from dpap.spiking import FoldTime


def test_equals_the_layers_step_by_step():
    fold = FoldTime(nn.Conv2d(2, 3, 3), nn.AvgPool2d(2), nn.Flatten())
    current = torch.randn(4, 5, 2, 8, 8)
    steps = torch.stack([nn.Sequential.forward(fold, x) for x in current])
    assert fold(current).shape == (4, 5, 27)
    torch.testing.assert_close(fold(current), steps)


def test_needs_time_batch_and_features():
    with pytest.raises((ValueError, TypeCheckError)):
        FoldTime(nn.Identity())(torch.zeros(4, 5))
