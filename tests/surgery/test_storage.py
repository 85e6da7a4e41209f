"""What is saved comes back; what is damaged or foreign is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import dpap
from dpap.models import NetworkConfig, build_network
from dpap.surgery.timesteps import silence_timesteps

NETWORK = NetworkConfig(layers="6C3-BN-AvgPool2-8C3-12FC-3FC", timesteps=3, threshold=0.5)
IMAGES = 2 * torch.rand(4, 1, 6, 6)


def _dense(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_network(NETWORK, (1, 6, 6), 3).eval()


def _compact() -> nn.Module:
    model = _dense()
    pruner = dpap.Pruner(
        model, IMAGES, None, dpap.PruningConfig(target=0.7, end_epoch=2, timestep_target=0.3)
    )
    for _ in range(2):
        model.train()
        model(IMAGES)
        pruner.step()
    pruner.compact()
    pruner.detach()
    return model.eval()


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


@pytest.mark.parametrize("length", [0, 7, 200, -1, -100])
def test_truncated_files_are_refused(saved: tuple[Path, nn.Module], length: int) -> None:
    path, _ = saved
    path.write_bytes(path.read_bytes()[:length])
    model = _dense()
    with pytest.raises(ValueError, match="damaged"):
        dpap.load(path, model)
    assert torch.equal(model(IMAGES), _dense()(IMAGES))


def test_changed_files_are_refused(saved: tuple[Path, nn.Module]) -> None:
    path, _ = saved
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        dpap.load(path, _dense())


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
