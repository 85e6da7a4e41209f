"""Buffers that no state_dict holds: cut with their units, they come back with the network, however it is stored."""

import copy
import pickle
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dpap
from dpap.anatomy.neurons import _REGISTRY

IMAGES = torch.rand(16, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _values(size: int) -> Tensor:
    return torch.linspace(0.2, 1.2, size, dtype=torch.float64)


class Gain(nn.Module):
    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("scale", _values(size), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Scaled(nn.Linear):
    """A weight layer with buffers of its units and of its features."""

    gain: Tensor
    before: Tensor

    def __init__(self, features: int, units: int) -> None:
        super().__init__(features, units, dtype=torch.float64)
        self.register_buffer("gain", _values(units), persistent=False)
        self.register_buffer("before", _values(features), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.before) * self.gain


class Spike(nn.Module):
    threshold: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("threshold", 0.1 * _values(size), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x > self.threshold).to(x) + 0 * x


class PlainSpike(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.threshold = 0.1 * _values(size)

    def forward(self, x: Tensor) -> Tensor:
        return (x > self.threshold).to(x) + 0 * x


class Twice(nn.Module):
    """One module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = _linear(6, 8), _linear(8, 8), _linear(8, 3)
        self.gain = self.again = Gain(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.again(self.second(self.gain(self.first(x)).relu())).relu())


def _linear(features: int, units: int) -> nn.Linear:
    return nn.Linear(features, units, dtype=torch.float64)


def _chain(*between: nn.Module) -> nn.Module:
    return nn.Sequential(_linear(6, 8), *between, _linear(8, 3))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "gain": lambda: _chain(Gain(8), nn.ReLU()),
    "weight layer": lambda: nn.Sequential(Scaled(6, 8), nn.ReLU(), Scaled(8, 8), nn.ReLU(), _linear(8, 3)),
    "neuron": lambda: _chain(Spike(8)),
    "shared": Twice,
}
networks = pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)


@pytest.fixture(autouse=True)
def _neurons() -> Iterator[None]:
    before = dict(_REGISTRY)
    for kind in (Spike, PlainSpike):
        dpap.register_neuron(kind, spikes=True)
    yield
    _REGISTRY.clear()
    _REGISTRY.update(before)


def _train(model: nn.Module) -> None:
    optimizer = model.__dict__["optimizer"]
    model(IMAGES).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def _made(build: Callable[[], nn.Module]) -> tuple[nn.Module, dpap.Pruner]:
    torch.manual_seed(0)
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    model.__dict__["optimizer"] = optimizer
    config = dpap.PruningConfig(
        criterion="taylor", target=0.3, target_of="parameters", start_epoch=0, end_epoch=2, synapses=False
    )
    return model, dpap.Pruner(model, IMAGES, optimizer, config)


def _compact(build: Callable[[], nn.Module]) -> tuple[nn.Module, dpap.Pruner]:
    """A network that was compacted twice."""
    model, pruner = _made(build)
    for _ in range(2):
        _train(model)
        pruner.step()
        pruner.compact()
    return model, pruner


def _loaded_by_script(weights: Path, build: Callable[[], nn.Module]) -> nn.Module:
    spec = spec_from_file_location("builder", weights.with_name("small_builder.py"))
    assert spec is not None and spec.loader is not None
    module: Any = module_from_spec(spec)
    spec.loader.exec_module(module)
    loaded: nn.Module = module.load(build)
    return loaded


@networks
def test_what_was_cut_comes_back(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    model, _ = _compact(build)
    expected = model(IMAGES)
    assert sum(each.numel() for each in model.parameters()) < sum(
        each.numel() for each in build().parameters()
    )
    path = dpap.save(model, tmp_path / "small.safetensors")
    assert torch.equal(dpap.load(path, build())(IMAGES), expected)
    assert torch.equal(dpap.load(path, dpap.load(path, build()))(IMAGES), expected)
    assert torch.equal(dpap.load_state(build(), model.state_dict())(IMAGES), expected)
    plain = dpap.save(model, tmp_path / "small.safetensors", format="plain")
    assert torch.equal(dpap.load(plain, build())(IMAGES), expected)
    assert torch.equal(_loaded_by_script(plain, build)(IMAGES), expected)
    copied = copy.deepcopy(model)
    assert torch.equal(dpap.load_state(build(), copied.state_dict())(IMAGES), expected)


@pytest.mark.parametrize("order", ["pruner first", "network first"])
@pytest.mark.parametrize("build", [NETWORKS["gain"], NETWORKS["neuron"]], ids=["gain", "neuron"])
def test_a_run_goes_on(build: Callable[[], nn.Module], order: str) -> None:
    model, pruner = _compact(build)
    state, of_pruner = model.state_dict(), pruner.state_dict()
    again, resumed = _made(build)
    if order == "pruner first":
        resumed.load_state_dict(of_pruner)
    again.load_state_dict(state)
    if order == "network first":
        resumed.load_state_dict(of_pruner)
    assert torch.equal(again(IMAGES), model(IMAGES))


@pytest.mark.parametrize(
    "build", [NETWORKS["weight layer"], NETWORKS["shared"]], ids=["weight layer", "shared"]
)
def test_a_state_of_an_earlier_version_is_loaded_or_refused(build: Callable[[], nn.Module]) -> None:
    model, pruner = _compact(build)
    names = build().state_dict().keys()
    earlier = {name: value for name, value in model.state_dict().items() if name in names}
    assert len(earlier) < len(model.state_dict())
    again, resumed = _made(build)
    with pytest.raises(RuntimeError, match=r"load the pruner's state first.*: not in the state"):
        again.load_state_dict(dict(earlier))
    resumed.load_state_dict(pruner.state_dict())
    again.load_state_dict(dict(earlier))
    assert torch.equal(again(IMAGES), model(IMAGES))


def test_until_something_is_cut_the_state_stays_as_it_was() -> None:
    model, pruner = _made(NETWORKS["gain"])
    assert isinstance(model, nn.Sequential)
    assert model.state_dict().keys() == NETWORKS["gain"]().state_dict().keys()
    _train(model)
    pruner.step()
    model[-1].register_forward_hook(lambda module, args, output: output * args[0].shape[-1])
    with pytest.raises(dpap.CompactionError):
        pruner.compact()
    assert model.state_dict().keys() == NETWORKS["gain"]().state_dict().keys()


def test_a_compact_network_is_pickled_with_its_buffers() -> None:
    model, pruner = _compact(NETWORKS["gain"])
    pruner.detach()
    again = pickle.loads(pickle.dumps(model))
    assert again.state_dict().keys() == model.state_dict().keys()


def test_constants_of_neurons_in_plain_tensors_keep_their_units() -> None:
    _, pruner = _made(
        lambda: nn.Sequential(_linear(6, 8), PlainSpike(8), _linear(8, 8), nn.ReLU(), _linear(8, 3))
    )
    layer = pruner.wiring.layers["0"]
    assert layer.prunability == "silenced"
    assert "1.threshold has a value for each unit in a plain tensor" in layer.reason
    assert "register_buffer('threshold'" in layer.reason
    assert pruner.wiring.layers["2"].prunability == "prunable"
