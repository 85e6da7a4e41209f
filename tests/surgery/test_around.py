"""Parameters of units that stand in a module around their layer, as a graph convolution's bias does."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dpap

NODES = torch.rand(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
EDGES = torch.rand(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class GraphConv(nn.Module):
    """Adds its bias after the aggregation, in the order of its units or in another."""

    def __init__(self, features: int, units: int, turned: bool = False) -> None:
        super().__init__()
        self.lin = nn.Linear(features, units, bias=False, dtype=torch.float64)
        self.bias = nn.Parameter(0.1 + torch.rand(units, dtype=torch.float64))
        self.gain = nn.Parameter(0.5 + torch.rand(1, units, dtype=torch.float64))
        self.turned = turned

    def forward(self, x: Tensor) -> Tensor:
        return EDGES @ self.lin(x) + (self.bias.flip(0) if self.turned else self.bias)


class Both(nn.Module):
    """One module around two layers, with a bias for each."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = (
            nn.Linear(features, units, bias=False, dtype=torch.float64)
            for features, units in ((4, 8), (8, 8), (8, 2))
        )
        self.of_second, self.of_first = (
            nn.Parameter(0.1 + torch.rand(8, dtype=torch.float64)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = (self.first(x) + self.of_first).relu()
        return self.last((self.second(x) + self.of_second).relu())


def _network(turned: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(GraphConv(4, 8, turned), nn.ReLU(), nn.Linear(8, 2, dtype=torch.float64))


def _pruner(model: nn.Module) -> dpap.Pruner:
    config = dpap.PruningConfig(criterion="magnitude", target=0.5, start_epoch=0, end_epoch=1, synapses=False)
    return dpap.Pruner(model, NODES, torch.optim.SGD(model.parameters(), 0.1), config)


def test_a_bias_that_is_added_later_dies_and_leaves_with_its_unit(tmp_path: Path) -> None:
    model = _network()
    pruner = _pruner(model)
    assert pruner.wiring.layers["0.lin"].prunability == "prunable"
    assert pruner.wiring.attachments["0"].tensors == {"bias": 0}
    pruner.step()
    dead = (model[0].lin.weight == 0).all(1)
    assert dead.any() and torch.equal(model[0].bias == 0, dead)
    expected = model(NODES)
    pruner.compact()
    assert len(model[0].bias) == model[0].lin.out_features == int((~dead).sum())
    torch.testing.assert_close(model(NODES), expected)
    pruner.detach()
    path = dpap.save(model, tmp_path / "small.safetensors")
    assert torch.equal(dpap.load(path, _network())(NODES), model(NODES))


def test_a_bias_of_another_layer_is_left_alone() -> None:
    torch.manual_seed(0)
    wiring = _pruner(Both()).wiring
    assert wiring.attachments[""].tensors == {"of_first": 0}
    assert list(wiring.attachments[""].feeds) == ["first"]
    assert wiring.layers["first"].prunability == "prunable"
    assert wiring.layers["second"].prunability == "whole"
    assert "something is added" in wiring.layers["second"].reason


def test_a_bias_in_another_order_is_not_taken_for_that_of_the_units() -> None:
    with pytest.raises(ValueError, match="something is added"):
        _pruner(_network(turned=True))
