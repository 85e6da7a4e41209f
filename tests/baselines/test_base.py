"""What holds for every baseline."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

import dpap
from dpap.anatomy import find_wiring
from dpap.baselines import GradientRewiring, GradientRewiringConfig, GradualMagnitude
from dpap.baselines.base import Baseline, _units_with
from dpap.models import NetworkConfig, build_network
from support.networks import Residual

CONFIG = dpap.PruningConfig(target=0.7, end_epoch=3)
Build = Callable[[nn.Module, Tensor, Optimizer | None], Baseline]
METHODS: dict[str, Build] = {
    "gradual magnitude": lambda model, x, optimizer: GradualMagnitude(model, x, optimizer, CONFIG),
    "gradient rewiring": lambda model, x, optimizer: GradientRewiring(
        model, x, optimizer, CONFIG, GradientRewiringConfig(alpha=0.5)
    ),
}


def _start(method: str) -> tuple[nn.Module, Tensor, Optimizer, Baseline]:
    torch.manual_seed(0)
    network = NetworkConfig(layers="4C3-BN-AvgPool2-12FC-3FC", timesteps=3, threshold=0.1)
    model, images = build_network(network, (1, 6, 6), 3), 2 * torch.rand(12, 1, 6, 6)
    optimizer = Adam(model.parameters(), 0.01)
    return model, images, optimizer, METHODS[method](model, images, optimizer)


def _learn(model: nn.Module, images: Tensor, optimizer: Optimizer, pruner: Baseline, epochs: int) -> None:
    model.train()
    for _ in range(epochs):
        for _ in range(4):
            optimizer.zero_grad()
            F.cross_entropy(model(images), torch.arange(len(images)) % 3).backward()
            optimizer.step()
        pruner.step()


@pytest.mark.parametrize("method", METHODS)
def test_the_same_weights_count_as_for_the_pruner(method: str) -> None:
    torch.manual_seed(0)
    model, images = Residual(), torch.rand(2, 2, 4, 4)
    pruner = METHODS[method](model, images, Adam(model.parameters(), 0.01))
    counted = dpap.Pruner(copy.deepcopy(model), images)._structure.weights
    assert {name: weight.numel() for name, weight in pruner.weights.items()} == counted
    assert pruner.sparsity == pruner.timestep_sparsity == 0


@pytest.mark.parametrize("method", METHODS)
def test_the_report_counts_what_is_zero_in_the_network(method: str) -> None:
    model, images, optimizer, pruner = _start(method)
    _learn(model, images, optimizer, pruner, 3)
    report = pruner.step()
    zero = sum(int((weight == 0).sum()) for weight in pruner.weights.values())
    total = sum(weight.numel() for weight in pruner.weights.values())
    assert 0.2 < report.sparsity == pruner.sparsity == pytest.approx(zero / total, abs=1e-12)
    for layer in report.layers:
        weight = pruner.weights[layer.name]
        assert layer.weights_alive == int(weight.count_nonzero())
        assert layer.alive == sum(bool(own.any()) for own in weight)
        assert (layer.units, layer.weights) == (len(weight), weight.numel())
    before = sum(parameter.numel() for parameter in model.parameters())
    assert pruner.compact().parameters_after == before == sum(p.numel() for p in model.parameters())
    assert pruner.survival() == {}


@pytest.mark.parametrize("method", METHODS)
def test_a_restored_baseline_goes_on_to_the_same_bits(method: str) -> None:
    whole = _start(method)
    _learn(*whole, 2)
    saved = copy.deepcopy([part.state_dict() for part in (whole[3], whole[0], whole[2])])
    _learn(*whole, 3)
    again = _start(method)
    for part, state in zip((again[3], again[0], again[2]), saved, strict=True):
        part.load_state_dict(state)
    _learn(*again, 3)
    assert all(
        torch.equal(value, again[0].state_dict()[name]) for name, value in whole[0].state_dict().items()
    )
    ours, theirs = whole[3].state_dict(), again[3].state_dict()
    assert ours.keys() == theirs.keys() and ours["epoch"] == theirs["epoch"] == 5
    for kind in ours.keys() - {"epoch", "config"}:
        assert all(torch.equal(value, theirs[kind][name]) for name, value in ours[kind].items())


@pytest.mark.parametrize("method", METHODS)
def test_a_detached_baseline_changes_nothing(method: str) -> None:
    model, images, optimizer, pruner = _start(method)
    _learn(model, images, optimizer, pruner, 3)
    pruner.detach()
    twin = copy.deepcopy(model)
    twin_optimizer = Adam(twin.parameters(), 0.01)
    twin_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    dead = {name: weight == 0 for name, weight in pruner.weights.items()}
    for network, own in ((model, optimizer), (twin, twin_optimizer)):
        own.zero_grad()
        F.cross_entropy(network(images), torch.arange(len(images)) % 3).backward()
        own.step()
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), twin.parameters(), strict=True))
    assert all(bool(weight[dead[name]].any()) for name, weight in pruner.weights.items())


@pytest.mark.parametrize("method", METHODS)
def test_a_state_of_another_method_or_network_is_refused(method: str) -> None:
    *_, pruner = _start(method)
    other = _start(next(name for name in METHODS if name != method))[3]
    with pytest.raises(ValueError, match="load it with the method and the network"):
        pruner.load_state_dict(other.state_dict())
    state = pruner.state_dict()
    kind = next(iter(state.keys() - {"epoch", "config"}))
    state[kind]["fc1"] = state[kind]["fc1"][1:]
    with pytest.raises(ValueError, match=r"fc1.*\(11, 36\).*\(12, 36\)"):
        pruner.load_state_dict(state)


def test_what_a_baseline_cannot_do_is_refused() -> None:
    model, images = Residual(), torch.rand(2, 2, 4, 4)
    for config in (dpap.PruningConfig(), dpap.PruningConfig(target=0.0, end_epoch=2)):
        with pytest.raises(ValueError, match=r"GradualMagnitude prunes to a target.*set pruning\.target"):
            GradualMagnitude(model, images, None, config)
    timesteps = dpap.PruningConfig(target=0.5, timestep_target=0.5, end_epoch=2)
    with pytest.raises(ValueError, match="prunes weights alone"):
        GradualMagnitude(model, images, None, timesteps)
    macs = dpap.PruningConfig(target=0.5, target_of="macs", end_epoch=2)
    with pytest.raises(ValueError, match="target of weights alone"):
        GradualMagnitude(model, images, None, macs)
    with pytest.raises(ValueError, match="needs the optimizer"):
        GradientRewiring(model, images, None, CONFIG)


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(4, 6),
        nn.Conv2d(4, 6, 3),
        nn.Conv1d(4, 6, 3, groups=2),
        nn.ConvTranspose2d(4, 6, 3, groups=2),
    ],
    ids=["fc", "conv", "grouped", "transposed"],
)
def test_a_unit_is_alive_by_any_of_its_weights(module: nn.Module) -> None:
    """Against the network itself: a unit has an output exactly where it has an alive weight."""
    torch.manual_seed(0)
    assert isinstance(module.weight, Tensor) and isinstance(module.bias, Tensor)
    shape = {2: (1, 4), 3: (1, 4, 5), 4: (1, 4, 5, 5)}[module.weight.ndim]
    model = nn.Sequential(module, nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    model(torch.rand(shape))
    layer = find_wiring(model, (torch.rand(shape),)).layers["0"]
    for _ in range(8):
        alive = torch.rand(module.weight.shape) < 1 / module.weight[0].numel()
        with torch.no_grad():
            module.weight.copy_(alive)
            module.bias.zero_()
        active = module(torch.ones(shape)).reshape(6, -1).any(1)
        assert torch.equal(_units_with(alive, layer), active)
