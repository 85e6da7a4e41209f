"""A weight layer that is no subclass of torch's: pruned, removed, stored and loaded once it is registered."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dpap
from dpap.anatomy import layers
from dpap.pruning.config import TargetOf


class Transposed(nn.Module):
    """Its weight is [feature, unit], as that of GPT-2's layers."""

    __constants__ = ("nx", "nf")

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.nx, self.nf = features, units
        self.kernel = nn.Parameter(torch.randn(features, units) / features**0.5)
        self.offset = nn.Parameter(torch.randn(units))

    def forward(self, x: Tensor) -> Tensor:
        # a layer that relies on its count, as many do
        return (x.flatten(0, -2) @ self.kernel + self.offset).view(*x.shape[:-1], self.nf)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    before = dict(layers._REGISTRY)
    dpap.register_layer(
        Transposed, weight="kernel", bias="offset", unit_axis=1, feature_axis=0, activity_axis=-1,
        unit_count="nf", feature_count="nx",
    )  # fmt: skip
    yield
    layers._REGISTRY.clear()
    layers._REGISTRY.update(before)


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Transposed(6, 20), nn.ReLU(), Transposed(20, 12), nn.ReLU(), Transposed(12, 3))


def test_units_and_synapses_die_and_leave(tmp_path: Path) -> None:
    model, x = _network(), torch.randn(32, 6)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    config = dpap.PruningConfig(target=0.8, end_epoch=2, start_epoch=0, observe_every=1)
    pruner = dpap.Pruner(model, x[:4], optimizer, config)
    assert [layer.prunability for layer in pruner.wiring.layers.values()] == ["prunable", "prunable", "whole"]
    for _ in range(2):
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), torch.arange(32) % 3).backward()
            optimizer.step()
        pruner.step()
    assert pruner.sparsity == pytest.approx(0.8, abs=0.01)
    alive = [value is not None for value in pruner.survival()["0"]]
    assert 0 < sum(alive) < 20
    silent = torch.relu(model[0](x))
    assert bool((silent[:, ~torch.tensor(alive)] == 0).all())
    assert int((model[0].kernel == 0).sum()) > 6 * (20 - sum(alive))  # synapses besides whole units
    before = model(x).detach()
    pruner.compact()
    assert (model[0].nx, model[0].nf) == (6, model[0].kernel.shape[1]) and model[0].nf < 20
    assert len(model[0].offset) == model[0].nf == model[2].nx
    torch.testing.assert_close(model(x), before)
    assert optimizer.state[model[0].kernel]["exp_avg"].shape == model[0].kernel.shape
    optimizer.step()
    loaded = dpap.load(dpap.save(model, tmp_path / "small.safetensors"), _network())
    torch.testing.assert_close(loaded(x), model(x))
    assert loaded[0].nf == model[0].nf


class Pointwise(Transposed):
    """The same over a sequence [batch, feature, place]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mT).mT


@pytest.mark.parametrize("target_of", ["synaptic_operations", "macs"])
def test_operations_that_cannot_be_counted_are_refused_before_anything_is_changed(
    target_of: TargetOf,
) -> None:
    dpap.register_layer(
        Pointwise, weight="kernel", bias="offset", unit_axis=1, feature_axis=0, activity_axis=-2, kind="conv",
        unit_count="nf", feature_count="nx",
    )  # fmt: skip
    torch.manual_seed(0)
    model = nn.Sequential(Pointwise(6, 20), nn.ReLU(), nn.Flatten(), nn.Linear(100, 3))
    x = torch.randn(4, 6, 5)
    config = dpap.PruningConfig.paper(target=0.5, target_of=target_of, end_epoch=1, start_epoch=0)
    if target_of == "macs":
        pruner = dpap.Pruner(model, x, None, config)
        model(x)
        assert pruner.step().achieved == pytest.approx(0.5, abs=0.05)
        before = model(x)
        pruner.compact()
        torch.testing.assert_close(model(x), before)
        assert model[0].nf == 10
    else:
        with pytest.raises(
            ValueError, match="0 is a Pointwise: set target_of to weights, parameters or macs"
        ):
            dpap.Pruner(model, x, None, config)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_layer_that_is_not_registered_is_no_weight_layer() -> None:
    del layers._REGISTRY[Transposed]
    with pytest.raises(ValueError, match="ran on the example inputs"):
        dpap.find_wiring(_network(), (torch.randn(4, 6),))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"unit_axis": 2}, "the first two axes of the weight, 0 and 1 in some order; got 2 and 0"),
        ({"feature_axis": 1}, "got 1 and 1"),
        ({"activity_axis": 1}, "counts from the end, -1 is the last axis; got 1"),
        ({"kind": "dense"}, '"fc" or "conv"; got \'dense\''),
    ],
)
def test_axes_are_checked(wrong: dict, message: str, unchecked: None) -> None:
    right = {"unit_axis": 1, "feature_axis": 0, "activity_axis": -1}
    with pytest.raises(ValueError, match=message):
        dpap.register_layer(Transposed, **{**right, **wrong})
    with pytest.raises(TypeError, match=r"expects a class of torch\.nn\.Module; got 3"):
        dpap.register_layer(3, **right)
