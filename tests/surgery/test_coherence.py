"""Files with right checksums whose tensors or tables do not fit each other are refused, and nothing is built."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import dpap
from dpap.models import NetworkConfig, build_network
from dpap.surgery.storage import _fingerprint
from dpap.surgery.timesteps import silence_timesteps

Change = Callable[[dict[str, Any], dict[str, Tensor]], Any]


def plain(width: int) -> nn.Module:
    """Every kind of module in turn; `width` is what may be removed."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, groups=width),
        nn.PReLU(width), nn.ConvTranspose2d(width, 4, 1, groups=2), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


def spiking(width: int) -> nn.Module:
    config = NetworkConfig(layers=f"{width}C3-AvgPool2-{width}FC-3FC", timesteps=3)
    return build_network(config, (1, 6, 6), 3)


def recurrent(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(5, width), nn.LSTM(width, width, 2, bidirectional=True, proj_size=2))


def written(path: Path, model: nn.Module, change: Change) -> Path:
    """A file as `save` writes it, then changed, with the checksum of what it holds now."""
    dpap.save(model, path)
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["dpap"])
    tensors = load_file(path)
    del about["sha256"]
    change(about, tensors)
    save_file(tensors, path, {"dpap": json.dumps(about | {"sha256": _fingerprint(about, tensors)})})
    return path


def refused(path: Path, network: nn.Module, message: str) -> None:
    before = {name: (value, value.clone()) for name, value in network.state_dict(keep_vars=True).items()}
    described = str(network)
    with pytest.raises(ValueError, match=message) as caught:
        dpap.load(path, network)
    assert str(path) in str(caught.value)
    now = network.state_dict(keep_vars=True)
    assert now.keys() == before.keys() and str(network) == described
    assert all(now[name] is value and torch.equal(value, old) for name, (value, old) in before.items())


def sized(name: str, *shape: int) -> Change:
    return lambda about, tensors: tensors.update({name: torch.ones(shape, dtype=tensors[name].dtype)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (sized("0.bias", 3), r"0\.bias: \(3,\) for the 4 units of 0\.weight"),
        (sized("0.weight", 4, 1, 2, 2), r"0\.weight: .* must be \(3, 3\)"),
        (sized("0.weight", 0, 1, 3, 3), r"0\.weight: nothing is left"),
        (sized("1.running_var", 3), r"1\.running_var: \(3,\), but \(4,\) as 1\.weight"),
        (sized("3.weight", 3, 1, 3, 3), "3"),
        (sized("5.weight", 3, 2, 1, 1), r"5\.weight: .* cannot be cut into 2 groups"),
        (sized("4.weight", 3), "4: 3 of 6 values, but it follows 3, of which 4 of 6 are left"),
        (sized("7.weight", 3, 12), "7: .* units, features and groups|7: 12 of 16 features, but it follows 5"),
        (sized("1.num_batches_tracked", 1), r"1\.num_batches_tracked"),
        (lambda about, tensors: tensors.update({"x": torch.ones(2)}), "x: in the file, not in the network"),
        (lambda about, tensors: tensors.pop("0.bias"), r"0\.bias: in the network, not in the file"),
        (lambda about, tensors: tensors.update({"0.bias": torch.ones(4).int()}), r"0\.bias: torch.int32"),
        (lambda about, tensors: about["layers"]["0"].update(size=[3, 1, 1]), r"0: units, features and groups \[3"),
        (lambda about, tensors: about["layers"]["0"].update(size=[4, 1]), "expected numbers of units"),
        (lambda about, tensors: about["layers"]["0"].update(size=[4, -1, 1]), "expected numbers of units"),
        (lambda about, tensors: about["layers"]["0"].update(size=[4, 1, 0]), "expected numbers of units"),
        (lambda about, tensors: about["layers"]["0"].update(size="all"), "expected numbers of units"),
        (lambda about, tensors: about["layers"]["0"].pop("class"), "expected class and settings"),
        (lambda about, tensors: about.update(layers=[1]), "expected an object as 'layers'"),
        (lambda about, tensors: about.pop("extra"), "expected an object as 'extra'"),
        (lambda about, tensors: about.update(tied={"0.weight": "1.weight"}), "to be the same as another tensor"),
        (lambda about, tensors: about.update(tied={"y": "nothing"}), "to be the same as another tensor"),
        (lambda about, tensors: about.update(tied={"y": ["0.bias"]}), "to be the same as another tensor"),
        (lambda about, tensors: about.update(extra={"0.bias": 3}), "both a tensor and extra state"),
        (lambda about, tensors: about["layers"].update({"\x1b[": {"class": "x" * 999, "settings": {}}}), r"\\x1b\["),
    ],
)  # fmt: skip
def test_a_plain_network(tmp_path: Path, change: Change, message: str) -> None:
    refused(written(tmp_path / "small.safetensors", plain(4), change), plain(6), message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (sized("fc1.weight", 4, 12), "fc1: 12 of 54 features, but it follows conv1, of which 4 of 6"),
        (sized("spike1.timestep_alive", 3, 2), r"spike1\.timestep_alive: for 2 units, but conv1 has 4"),
        (sized("spike1.timestep_axes", 3), r"spike1\.timestep_axes: .* not two whole numbers"),
        (lambda about, tensors: tensors["spike1.timestep_axes"].fill_(99), "not two axes of an output"),
        (
            lambda about, tensors: tensors.update({"spike1.timestep_alive": torch.full((3, 4), 5.0)}),
            "not truth values",
        ),
    ],
)
def test_timesteps(tmp_path: Path, change: Change, message: str) -> None:
    small = spiking(4)
    silence_timesteps(small.get_submodule("spike1"), torch.ones(3, 4, dtype=torch.bool), 0, -3)
    refused(written(tmp_path / "small.safetensors", small, change), spiking(6), message)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("0.weight", (4, 4)),
        ("1.weight_ih_l0", (16, 3)),
        ("1.weight_hh_l0", (16, 1)),
        ("1.bias_hh_l1", (12,)),
        ("1.weight_ih_l1_reverse", (16, 3)),
        ("1.weight_hr_l1", (2, 3)),
    ],
)
def test_a_recurrent_network(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    small = written(tmp_path / "small.safetensors", recurrent(4), lambda about, tensors: None)
    assert dpap.load(small, recurrent(6))[1].hidden_size == 4
    refused(
        written(tmp_path / "forged.safetensors", recurrent(4), sized(name, *shape)),
        recurrent(6),
        "fit each other|table|units, features",
    )


def test_states_without_a_file_are_looked_at_too() -> None:
    state: dict[str, Any] = plain(4).state_dict()
    dpap.load_state(plain(6), state)
    with pytest.raises(ValueError, match=r"this state .* do not fit each other:\n  0\.bias: \(3,\)"):
        dpap.load_state(plain(6), {**state, "0.bias": torch.ones(3)})
    with pytest.raises(ValueError, match=r"0\.bias: in the network, not in the state"):
        dpap.load_state(plain(6), {**state, "0.bias": [1, 2, 3, 4]})


def test_modules_that_stand_twice_in_a_chain_are_followed() -> None:
    def chain(width: int) -> nn.Module:
        middle = nn.Linear(width, width)
        return nn.Sequential(
            nn.Linear(3, width), middle, nn.Linear(width, width), middle, nn.Linear(width, 2)
        )

    dpap.load_state(chain(6), chain(4).state_dict())
