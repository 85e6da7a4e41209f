"""Layers with few alive synapses compute by sparse products within a block, and the others as ever."""

import pytest
import torch
from torch import nn

from dpap import sparse_execution


class Own(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(50, 40), nn.ReLU(), nn.Linear(40, 30, bias=False), nn.ReLU(), nn.Linear(30, 20), Own(20, 20)
    ).double()
    for layer, dead in ((model[0], 0.96), (model[2], 0.98), (model[4], 0.5), (model[5], 0.99)):
        layer.weight.data[torch.rand_like(layer.weight) < dead] = 0
    return model.eval()


@pytest.mark.parametrize("shape", [(50,), (1, 50), (7, 50), (2, 3, 50), (0, 50)])
@torch.no_grad()
def test_results_differ_by_rounding_alone_and_nothing_stays(shape: tuple[int, ...]) -> None:
    model, x = network(), torch.rand(shape, dtype=torch.float64)
    expected, described = model(x), str(model)
    with sparse_execution(model, least_weights=100) as report:
        assert list(report.sparse) == ["0", "2"] and report.sparse["0"] > 0.93
        assert model[0].forward.__module__ == "dpap.surgery.sparse_products"
        torch.testing.assert_close(model(x), expected)
    assert str(model) == described and "forward" not in vars(model[0])
    assert torch.equal(model(x), expected)


def test_what_is_left_says_why() -> None:
    model = network()
    with sparse_execution(model, least_weights=700) as report:
        assert "is not that of nn.Linear" in report.dense["5"] and "600 weights of 700" in report.dense["4"]
        assert "0: sparse, 95.9%" in str(report) and "5: as it is" in str(report)
    with sparse_execution(model, least_weights=100, least_dead=0.97) as report:
        assert list(report.sparse) == ["2"] and "zero, of 97%" in report.dense["0"]
        with sparse_execution(model, least_weights=100) as inner:
            assert "2" in inner.dense and "0" in inner.sparse
    with sparse_execution(model.bfloat16(), least_weights=100) as report:
        assert not report.sparse and "bfloat16 on cpu" in report.dense["0"]


def test_training_and_gradients_are_as_ever() -> None:
    model, x = network(), torch.rand(3, 50, dtype=torch.float64)
    expected = torch.autograd.grad(model(x).sum(), model[0].weight)[0]
    with sparse_execution(model, least_weights=100):
        assert torch.equal(torch.autograd.grad(model(x).sum(), model[0].weight)[0], expected)


@torch.no_grad()
def test_weights_that_change_meanwhile_are_noticed() -> None:
    model, x = network(), torch.rand(3, 50, dtype=torch.float64)
    with sparse_execution(model, least_weights=100):
        model[0].weight.mul_(2)
        with pytest.raises(RuntimeError, match="the weight of 0 changed"):
            model(x)


@torch.no_grad()
def test_an_error_within_leaves_the_network_as_it_was() -> None:
    model = network()
    with pytest.raises(KeyError), sparse_execution(model, least_weights=100):
        raise KeyError
    assert not any("forward" in vars(module) for module in model)
    with pytest.raises(ValueError, match="from 0 to 1"), sparse_execution(model, least_dead=95):
        pass
