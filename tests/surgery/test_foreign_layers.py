"""Weight layers of other libraries are known by name; what is none is named, with its share of all weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dpap


class Conv1D(nn.Module):
    """As GPT-2's: the weight is [feature, unit]; the width is an attribute."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(torch.randn(nx, nf) / nx**0.5)
        self.bias = nn.Parameter(torch.randn(nf))

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:-1], self.nf)
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).view(shape)


class Linear(nn.Module):
    """As torch_geometric's: no subclass of torch's."""

    def __init__(self, out_channels: int, in_channels: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels) / in_channels**0.5)
        self.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


FOREIGN = {
    "transformers.pytorch_utils.Conv1D": Conv1D,
    "torch_geometric.nn.dense.linear.Linear": Linear,
}


@pytest.fixture(params=FOREIGN)
def foreign(request: pytest.FixtureRequest) -> type[nn.Module]:
    """A class that bears the name of one of another library."""
    module, _, name = request.param.rpartition(".")
    return type(name, (FOREIGN[request.param],), {"__module__": module, "__qualname__": name})


def _of(layer: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(layer(20, 6), nn.ReLU(), layer(12, 20), nn.GELU(), nn.Linear(12, 3))


def test_foreign_layers_are_pruned_removed_and_stored(foreign: type[nn.Module], tmp_path: Path) -> None:
    model, x = _of(foreign), torch.randn(32, 6)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    pruner = dpap.Pruner(model, x[:4], optimizer, dpap.PruningConfig(target=0.6, end_epoch=1, start_epoch=0))
    assert [layer.prunability for layer in pruner.wiring.layers.values()] == ["prunable", "prunable", "whole"]
    assert not pruner.wiring.others
    nn.functional.cross_entropy(model(x), torch.arange(32) % 3).backward()
    optimizer.step()
    assert pruner.step().sparsity == pytest.approx(0.6, abs=0.01)
    before = model(x).detach()
    report = pruner.compact()
    assert report.parameters_after < report.parameters_before
    torch.testing.assert_close(model(x), before)
    loaded = dpap.load(dpap.save(model, tmp_path / "small.safetensors"), _of(foreign))
    torch.testing.assert_close(loaded(x), before)


class Paired(nn.Module):
    """Two branches meet in a bilinear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(6, 8), nn.Linear(6, 7)
        self.pair, self.head = nn.Bilinear(8, 7, 9), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pair(self.one(x).relu(), self.other(x).relu()).relu())


@pytest.mark.parametrize("criterion", ["taylor", "magnitude", "bcm"])
def test_units_of_a_bilinear_layer_leave_and_those_that_it_multiplies_are_silenced(criterion: str) -> None:
    model, x = Paired().double(), torch.randn(16, 6).double()
    config = dpap.PruningConfig(target=0.7, end_epoch=1, start_epoch=0, criterion=criterion, observe_every=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = dpap.Pruner(model, x[:4], optimizer, config)
    assert {name: layer.prunability for name, layer in pruner.wiring.layers.items()} == {
        "one": "silenced",
        "other": "whole",
        "pair": "prunable",
        "head": "whole",
    }
    assert not pruner.wiring.layers["pair"].synapses
    model(x).square().sum().backward()
    optimizer.step()
    pruner.step()
    alive = sum(value is not None for value in pruner.survival()["pair"])
    assert alive < 9
    before = model(x)
    pruner.compact()
    assert model.pair.weight.shape == (alive, 8, 7) and model.pair.out_features == alive
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-14)


class Kernel(nn.Module):
    """A weight layer that nobody registered."""

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(features, units))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.kernel


def test_what_cannot_be_pruned_is_named_with_its_share_of_all_weights() -> None:
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 10), nn.ReLU(), Kernel(10, 4))
    wiring = dpap.find_wiring(model, (torch.randn(4, 6),))
    assert set(wiring.others) == {"4"}
    line = " ".join(str(wiring).split())
    assert "20% of all weights lie elsewhere and cannot be pruned: 4 (Kernel);" in line
    assert "dpap.register_layer" in line


def test_a_network_in_which_nothing_can_be_pruned_says_what_holds_its_weights() -> None:
    model = nn.Sequential(Kernel(6, 10), nn.ReLU(), nn.Linear(10, 2))
    with pytest.raises(
        ValueError, match=r"75%\s+of\s+all\s+weights(.|\n)*: 0 \(Kernel\)(.|\n)*register_layer"
    ):
        dpap.Pruner(model, torch.randn(4, 6))
    with pytest.raises(ValueError, match=r"dpap\.register_layer; its weights are in: 0 \(Kernel\)"):
        dpap.find_wiring(nn.Sequential(Kernel(6, 2)), (torch.randn(4, 6),))


class Twice(nn.Module):
    """An embedding tied to the output, a layer that never runs, and a computed weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.hidden = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        self.unused = nn.Linear(8, 5)
        self.head = nn.Linear(8, 10, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(x).relu())


def test_weights_that_are_shared_or_computed_count_once() -> None:
    wiring = dpap.find_wiring(Twice(), (torch.randn(4, 8),))
    assert set(wiring.others) == set() and "unused" in wiring.layers["unused"].reason
    assert "lie elsewhere" not in str(wiring)
