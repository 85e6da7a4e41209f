import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

from dpap.spiking import LIF, FoldTime, over_time


def test_equals_the_layers_step_by_step():
    fold = FoldTime(nn.Conv2d(2, 3, 3), nn.AvgPool2d(2), nn.Flatten())
    current = torch.randn(4, 5, 2, 8, 8)
    steps = torch.stack([nn.Sequential.forward(fold, x) for x in current])
    assert fold(current).shape == (4, 5, 27)
    torch.testing.assert_close(fold(current), steps)


def test_needs_time_batch_and_features():
    with pytest.raises((ValueError, TypeCheckError)):
        FoldTime(nn.Identity())(torch.zeros(4, 5))


@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_a_constant_current_has_the_gradient_of_a_repeated_one(reset: str, detach_reset: bool):
    neuron = LIF(reset=reset, detach_reset=detach_reset)
    constant = (3 * torch.randn(4, 5, dtype=torch.float64)).requires_grad_()
    upstream = torch.randn(6, 4, 5, dtype=torch.float64)
    gradients = [
        torch.autograd.grad(neuron(current), constant, upstream)[0]
        for current in (constant.repeat(6, 1, 1), over_time(constant, 6), constant.expand(6, 4, 5))
    ]
    torch.testing.assert_close(gradients[1], gradients[0])
    torch.testing.assert_close(gradients[2], gradients[0])


def test_over_time_adds_up_gradients_that_differ():
    constant = torch.randn(4, 5, requires_grad=True)
    weight = torch.randn(3, 4, 5)
    (over_time(constant, 3) * weight).sum().backward()
    torch.testing.assert_close(constant.grad, weight.sum(0))
