"""What is saved comes back; what is damaged or foreign is refused."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import snntorch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

import dpap
from dpap.anatomy.neurons import _REGISTRY
from dpap.models import NetworkConfig, build_network
from dpap.surgery.timesteps import silence_timesteps
from support.networks import Drawn, Residual, chains

NETWORK = NetworkConfig(layers="6C3-BN-AvgPool2-8C3-12FC-3FC", timesteps=3, threshold=0.5)
IMAGES = 2 * torch.rand(4, 1, 6, 6)


def _dense(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_network(NETWORK, (1, 6, 6), 3).eval()


def _compact() -> nn.Module:
    model = _dense()
    pruner = dpap.Pruner(
        model, IMAGES, None, dpap.PruningConfig.paper(target=0.7, end_epoch=2, timestep_target=0.3)
    )
    for _ in range(2):
        model.train()
        model(IMAGES)
        pruner.step()
    pruner.compact()
    pruner.detach()
    return model.eval()


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that tests only read."""
    return dpap.save(_compact(), tmp_path_factory.mktemp("once") / "small.safetensors")


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, nn.Module]:
    model = _compact()
    return dpap.save(model, tmp_path / "small.safetensors"), model


def test_a_fresh_network_takes_the_stored_structure(saved: tuple[Path, nn.Module]) -> None:
    path, model = saved
    fresh = _dense(seed=5)
    weight = fresh.get_submodule("fc1").weight
    assert dpap.load(path, fresh) is fresh
    assert torch.equal(fresh(IMAGES), model(IMAGES))
    assert fresh.get_submodule("fc1").weight is weight
    assert str(fresh) == str(model)
    assert sum(p.numel() for p in fresh.parameters()) < sum(p.numel() for p in _dense().parameters()) / 2


def test_silent_timesteps_are_stored(saved: tuple[Path, nn.Module]) -> None:
    path, _ = saved
    fresh = dpap.load(path, _dense())
    alive = fresh.get_submodule("spike2").timestep_alive
    assert not alive.all()
    spikes: list[Tensor] = []
    fresh.get_submodule("spike2").register_forward_hook(lambda m, a, out: spikes.append(out))
    fresh(3 * IMAGES)
    assert not spikes[0].transpose(1, 2)[~alive].any()
    assert spikes[0].transpose(1, 2)[alive].any()


def test_other_numbers_of_timesteps_are_refused_where_timesteps_are_silent() -> None:
    neuron = build_network(NETWORK, (1, 6, 6), 3).get_submodule("spike1")
    silence_timesteps(neuron, torch.ones(3, 6, dtype=torch.bool), 0, -3)
    with pytest.raises(ValueError, match="pruned for T = 3; got T = 4"):
        neuron(torch.rand(4, 1, 6, 2, 2))


def test_equal_networks_give_equal_files(saved: tuple[Path, nn.Module], tmp_path: Path) -> None:
    path, model = saved
    assert dpap.save(model, tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_no_temporary_file_is_left(saved: tuple[Path, nn.Module]) -> None:
    assert [file.name for file in saved[0].parent.iterdir()] == ["small.safetensors"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors"):
        dpap.load(tmp_path / "nothing.safetensors", _dense())


def _snapshot(model: nn.Module) -> dict[str, object]:
    """Every bit and every setting of a network."""
    content: dict[str, object] = {}
    for path, module in model.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            content[f"{path}.{name}"] = None if tensor is None else (id(tensor), tensor.tolist())
        plain = {key: value for key, value in vars(module).items() if isinstance(value, int | float | tuple)}
        content[path] = (plain, list(module._forward_hooks))
    return content


@given(data=st.data())
@settings(max_examples=60)
def test_no_damage_goes_unnoticed(
    data: st.DataObject, once: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(once.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    size = data.draw(st.sampled_from([8, header, len(content)]))
    place = data.draw(st.integers(0, size - 1))
    if data.draw(st.booleans()):
        del content[place:]
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    damaged = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    damaged.write_bytes(content)
    model = _dense(seed=3)
    before = _snapshot(model)
    try:
        dpap.load(damaged, model)
    except ValueError as error:
        assert re.search("damaged|checksum|not written by this dpap", str(error))
        assert _snapshot(model) == before
    else:  # another byte for the same content, such as white space of the header
        good = dpap.load(once, _dense())
        assert all(torch.equal(good.state_dict()[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("part", ["layers", "tied", "extra", "sha256"])
def test_a_changed_description_is_refused(saved: tuple[Path, nn.Module], part: str) -> None:
    path, _ = saved
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["dpap"])
    about[part] = {"fc1": "other"}
    save_file(load_file(path), path, {"dpap": json.dumps(about)})
    with pytest.raises(ValueError, match="checksum"):
        dpap.load(path, _dense())


def test_swapped_tensors_are_refused(saved: tuple[Path, nn.Module]) -> None:
    path, _ = saved
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    names = ("bn1.weight", "bn1.bias")
    tensors |= dict(zip(names, [tensors[name] for name in reversed(names)], strict=True))
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match="checksum"):
        dpap.load(path, _dense())


def test_an_interrupted_save_leaves_the_old_file(
    saved: tuple[Path, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = saved
    old = path.read_bytes()

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dpap.files.os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dpap.save(_dense(), path)
    assert path.read_bytes() == old and [file.name for file in path.parent.iterdir()] == [path.name]


def test_foreign_safetensors_are_refused(saved: tuple[Path, nn.Module]) -> None:
    path, _ = saved
    save_file(load_file(path), path)
    with pytest.raises(ValueError, match="not written by this dpap"):
        dpap.load(path, _dense())


def test_another_network_is_refused_with_everything_that_does_not_fit(saved: tuple[Path, nn.Module]) -> None:
    path, _ = saved
    other = build_network(NetworkConfig(layers="2C3-BN-AvgPool2-8C3-5FC-12FC-3FC", timesteps=3), (1, 6, 6), 3)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(ValueError, match="another network") as error:
        dpap.load(path, other)
    assert "fc3.weight: in the network, not in the file" in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


class Depthwise(nn.Module):
    """A block as of MobileNet, and a transposed convolution of one channel each."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(2, 12, 1), nn.BatchNorm2d(12), nn.ReLU6())
        self.filter = nn.Sequential(
            nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.BatchNorm2d(12), nn.ReLU6()
        )
        self.enlarge = nn.Sequential(nn.ConvTranspose2d(12, 12, 2, stride=2, groups=12), nn.ReLU())
        self.project = nn.Conv2d(12, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.project(self.enlarge(self.filter(self.expand(images)))).mean((2, 3))


class Grouped(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(2, 12, 3),
            nn.ReLU(),
            nn.Conv2d(12, 8, 3, groups=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128, 3),
        )


class SpikingJelly(nn.Module):
    """Multi-step, as in its tutorials."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            layer.Conv2d(2, 8, 3, padding=1, bias=False),
            layer.BatchNorm2d(8),
            neuron.IFNode(v_threshold=0.3),
            layer.MaxPool2d(2),
            layer.Flatten(),
            layer.Linear(8 * 16, 20),
            neuron.ParametricLIFNode(v_threshold=0.3),
            layer.Linear(20, 3),
        )
        functional.set_step_mode(self, "m")

    def forward(self, images: Tensor) -> Tensor:
        functional.reset_net(self)
        return self.layer(images.expand(4, *images.shape)).mean(0)


class SnnTorch(nn.Module):
    """A loop over time with hidden state that its neurons keep, and thresholds that are learned per neuron."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(128, 12), nn.Linear(12, 3)
        self.lif1 = snntorch.Leaky(
            beta=torch.linspace(0.5, 0.9, 12), threshold=0.3, init_hidden=True, learn_beta=True
        )

    def forward(self, images: Tensor) -> Tensor:
        self.lif1.reset_mem()
        return torch.stack([self.fc2(self.lif1(self.fc1(images.flatten(1)))) for _ in range(4)]).mean(0)


SAMPLES = 3 * torch.rand(4, 2, 8, 8)
NETWORKS = [Residual, Depthwise, Grouped, SpikingJelly, SnnTorch]


def _pruned(model: nn.Module, inputs: Tensor, **choice: Any) -> nn.Module:
    config = dpap.PruningConfig.paper(
        target=0.5, end_epoch=2, start_epoch=0, observe_every=1, min_units=1, **choice
    )
    pruner = dpap.Pruner(model, inputs, None, config)
    for _ in range(2):
        model.train()
        model(inputs)
        pruner.step()
    pruner.compact()
    pruner.detach()
    return model.eval()


def _built(network: Callable[[], nn.Module], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return network().eval()


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_of_any_kind_come_back_bit_for_bit(network: type[nn.Module], tmp_path: Path) -> None:
    model = _pruned(_built(network, 0), SAMPLES)
    expected = model(SAMPLES)
    path = dpap.save(model, tmp_path / "small.safetensors")
    fresh = _built(network, 1)
    fresh(SAMPLES[:3])
    dense = sum(parameter.numel() for parameter in fresh.parameters())
    parameters = list(fresh.parameters())
    optimizer = torch.optim.Adam(fresh.parameters())
    dpap.load(path, fresh)
    assert sum(parameter.numel() for parameter in fresh.parameters()) < dense
    assert torch.equal(fresh(SAMPLES), expected)
    assert str(fresh) == str(model)
    if isinstance(fresh, Depthwise):
        assert fresh.filter[0].groups == len(fresh.filter[0].weight) < 12
    assert all(new is old for new, old in zip(optimizer.param_groups[0]["params"], parameters, strict=True))
    fresh(SAMPLES).sum().backward()
    optimizer.step()
    assert not torch.equal(fresh(SAMPLES), expected)


@given(chains())
@settings(max_examples=10)
def test_random_networks_come_back(tmp_path_factory: pytest.TempPathFactory, drawn: Drawn) -> None:
    model, inputs = drawn
    fresh = copy.deepcopy(model).eval()
    for parameter in fresh.parameters():
        nn.init.zeros_(parameter)
    try:
        _pruned(model, inputs)
    except ValueError as error:
        assert "nothing in this network can be pruned" in str(error)
        model.eval()
    path = dpap.save(model, tmp_path_factory.getbasetemp() / "random.safetensors")
    assert torch.equal(dpap.load(path, fresh)(inputs), model(inputs))
    assert torch.equal(dpap.load(path, fresh)(inputs), model(inputs))


def test_a_larger_network_is_refused(tmp_path: Path) -> None:
    path = dpap.save(nn.Linear(5, 4), tmp_path / "large.safetensors")
    with pytest.raises(ValueError, match=r"weight: the file has \(4, 5\), the network only \(3, 5\)"):
        dpap.load(path, nn.Linear(5, 3))


class Odd(nn.Module):
    """Every kind of tensor that a module can hold."""

    def __init__(self, extra: object = ("text", 3)) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.brief = nn.Parameter(torch.rand(3).bfloat16())
        self.register_buffer("mask", torch.rand(3) > 0.5)
        self.register_buffer("number", torch.randint(9, ()))
        self.register_buffer("nothing", None)
        self.register_buffer("passing", torch.rand(2), persistent=False)
        self.extra = extra

    def get_extra_state(self) -> object:
        return self.extra

    def set_extra_state(self, state: object) -> None:
        if state == "refused":
            raise KeyError("unknown")
        self.extra = state


@pytest.mark.parametrize("extra", [{"epochs": [1, 2.5, None]}, torch.arange(3), "text"])
def test_tensors_of_all_kinds_come_back(extra: object, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Odd(extra)
    path = dpap.save(model, tmp_path / "odd.safetensors")
    assert "head.weight" not in load_file(path) and "passing" not in load_file(path)
    fresh = Odd("other" if not isinstance(extra, Tensor) else torch.zeros(9))
    dpap.load(path, fresh)
    assert fresh.head.weight is fresh.embed.weight and fresh.nothing is None
    for name, value in model.state_dict().items():
        loaded = fresh.state_dict()[name]
        same = torch.equal(loaded, value) if isinstance(value, Tensor) else loaded == value
        assert same and type(loaded) is type(value)


def test_other_ties_are_refused(tmp_path: Path) -> None:
    path = dpap.save(Odd("text"), tmp_path / "odd.safetensors")
    untied = Odd("text")
    untied.head.weight = nn.Parameter(torch.rand(6, 4))
    with pytest.raises(
        ValueError, match=r"head\.weight: the same tensor as embed\.weight in the file, as none in"
    ):
        dpap.load(path, untied)


def test_extra_state_beyond_plain_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="_extra_state is another set"):
        dpap.save(Odd({1, 2}), tmp_path / "odd.safetensors")
    assert not list(tmp_path.iterdir())


class Scaled(nn.Linear):
    """Adds a number to its state_dict, by torch's older way."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}scale"] = 3.0


def test_entries_of_a_state_dict_that_are_no_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"its entry 0\.scale is a float, which would be lost"):
        dpap.save(nn.Sequential(Scaled(2, 2)), tmp_path / "scaled.safetensors")
    assert not list(tmp_path.iterdir())
    plain = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="its entry scale is a float"):
        dpap.load(dpap.save(plain, tmp_path / "plain.safetensors"), Scaled(2, 2))
    with pytest.raises(TypeError, match="its entry scale is a float"):
        dpap.load_state(Scaled(2, 2), plain.state_dict())


def test_a_module_that_refuses_its_extra_state_stays_as_it_was(tmp_path: Path) -> None:
    path = dpap.save(Odd("refused"), tmp_path / "odd.safetensors")
    model = Odd("own")
    before = _snapshot(model)
    with pytest.raises(ValueError, match="refuses the extra state _extra_state"):
        dpap.load(path, model)
    assert _snapshot(model) == before and model.extra == "own"


def test_another_kind_of_number_is_refused(tmp_path: Path) -> None:
    path = dpap.save(Odd("text"), tmp_path / "odd.safetensors")
    other = Odd("text")
    other.mask = torch.zeros(3)
    with pytest.raises(ValueError, match=r"mask: torch\.bool in the file, torch\.float32 in the network"):
        dpap.load(path, other)


def test_lazy_layers_are_named(tmp_path: Path) -> None:
    lazy = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ValueError, match=r"have not run yet \(0\): run one forward"):
        dpap.save(lazy, tmp_path / "lazy.safetensors")
    path = dpap.save(nn.Sequential(nn.Linear(2, 3)), tmp_path / "whole.safetensors")
    with pytest.raises(ValueError, match=r"have not run yet \(0\): run one forward"):
        dpap.load(path, lazy)
    lazy(torch.rand(1, 2))
    dpap.load(path, lazy)


def test_precision_memory_format_and_frozen_parameters_stay_the_networks_own(
    saved: tuple[Path, nn.Module],
) -> None:
    path, model = saved
    fresh = _dense(seed=2).double().to(memory_format=torch.channels_last)
    fresh.get_submodule("conv2").weight.requires_grad_(False)
    dpap.load(path, fresh)
    weight = fresh.get_submodule("conv2").weight
    assert weight.dtype == torch.float64 and not weight.requires_grad
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(weight.float(), model.get_submodule("conv2").weight)


def test_compiled_networks_are_stored_under_their_own_names(
    saved: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    path, model = saved
    again = dpap.save(torch.compile(model, backend="eager"), tmp_path / "again.safetensors")
    assert again.read_bytes() == path.read_bytes()
    fresh = _dense(seed=2)
    dpap.load(path, torch.compile(fresh, backend="eager"))
    assert torch.equal(fresh(IMAGES), model(IMAGES))


class StoredMembrane(nn.Module):
    """A neuron with its membrane in a buffer that a state_dict holds."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("membrane", torch.zeros(1))

    def reset(self) -> None:
        self.membrane = torch.zeros(1)

    def forward(self, current: Tensor) -> Tensor:
        self.membrane = self.membrane * 0.5 + current.detach()
        return (self.membrane > 0.5).to(current.dtype)


def test_hidden_state_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpap.anatomy.neurons._REGISTRY", dict(_REGISTRY))
    dpap.register_neuron(StoredMembrane, spikes=True)

    def built() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 8), StoredMembrane(), nn.Linear(8, 2))

    model, fresh = built(), built()
    empty = dpap.save(model, tmp_path / "fresh.safetensors").read_bytes()
    before = model(torch.rand(5, 3))
    membrane = model[1].membrane
    path = dpap.save(model, tmp_path / "run.safetensors")
    assert path.read_bytes() == empty
    assert model[1].membrane is membrane and before.shape == (5, 2)
    fresh(torch.rand(7, 3))
    dpap.load(path, fresh)
    model[1].reset()
    inputs = torch.rand(4, 3)
    assert torch.equal(fresh(inputs), model(inputs))
