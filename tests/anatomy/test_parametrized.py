"""A look at a parametrized weight takes no part in training."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import cached, register_parametrization

import dpap
from dpap.anatomy.layers import owner_of, weight_of
from dpap.anatomy.views import MatrixView


class Restless(nn.Module):
    """Leaves something behind whenever it is computed, in any mode, and draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(1))
        self.count, self.seen = 0, torch.zeros(1)

    def forward(self, weight: Tensor) -> Tensor:
        self.last.add_(1)
        self.last = self.last + torch.rand(1)
        self.seen.add_(1)
        self.count += 1
        return F.dropout(weight, 0.5, self.training)


def restless(layer: nn.Module, name: str = "weight") -> nn.Module:
    register_parametrization(layer, name, Restless())
    return layer


def network(parametrized: Callable[[nn.Module], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(parametrized(nn.Linear(8, 12)), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3))
    )


def trained(model: nn.Module, pruned: bool = False) -> dict[str, Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    config = dpap.PruningConfig(target=0.5, start_epoch=50, end_epoch=100)
    pruner = dpap.Pruner(model, torch.rand(4, 8), optimizer, config) if pruned else None
    torch.manual_seed(1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.linspace(-1, 1, 80).view(10, 8)).square().mean().backward()
        optimizer.step()
        if pruner is not None:
            pruner.step()
    return model.state_dict()


def recurrent() -> nn.Module:
    return MatrixView(restless(nn.LSTM(4, 4), "weight_hh_l0"), "weight_hh_l0", "bias_hh_l0", 4)


@pytest.mark.parametrize("layer", [restless(nn.Linear(4, 4)), recurrent()], ids=["fc", "recurrent"])
def test_a_look_leaves_no_trace(layer: nn.Module) -> None:
    ((name, computed),) = owner_of(layer).parametrizations.items()
    part = computed[0]
    part.count, random, last, value = 0, torch.get_rng_state(), part.last, part.last.clone()
    part.seen.zero_()
    with cached():
        assert torch.equal(weight_of(layer), computed.original)
        assert torch.equal(torch.get_rng_state(), random)
        assert part.last is last and torch.equal(last, value)
        assert (part.count, float(part.seen), part.training) == (0, 0.0, True)
        # what training computes meanwhile is its own
        assert (getattr(owner_of(layer), name) == 0).any()


@pytest.mark.parametrize("parametrized", [spectral_norm, restless], ids=["spectral norm", "restless"])
def test_a_pruner_that_kills_nothing_takes_no_part_in_training(
    parametrized: Callable[[nn.Module], nn.Module],
) -> None:
    expected, found = trained(network(parametrized)), trained(network(parametrized), pruned=True)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_spectral_norm_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    model = network(spectral_norm)
    expected = {name: value.clone() for name, value in trained(model).items()}
    loaded = dpap.load(dpap.save(model, tmp_path / "spectral.safetensors"), network(spectral_norm))
    for state in (model.state_dict(), loaded.state_dict()):
        assert all(torch.equal(state[name], value) for name, value in expected.items())
