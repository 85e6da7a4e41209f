"""Networks with tensors that would fit are distinguished by their layers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

import dpap
from dpap.anatomy.neurons import _REGISTRY
from dpap.spiking import LIF, PLIF, Sigmoid
from dpap.surgery.structure import differences, recount, structure_of


class Parts(nn.Module):
    """Four parts in a container of the user's own."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.Sequential(*parts)


class RenamedParts(Parts):
    pass


def _parts(
    convolution: nn.Module | None = None, activation: nn.Module | None = None, kind: type[Parts] = Parts
) -> Parts:
    return kind(convolution or nn.Conv2d(2, 4, 3), activation or nn.ReLU(), nn.AvgPool2d(2), nn.Linear(4, 3))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (_parts(activation=nn.GELU()), r"parts\.1: ReLU in the file, GELU in the network"),
        (_parts(activation=LIF()), r"parts\.1: ReLU in the file, LIF in the network"),
        (_parts(nn.Conv2d(2, 4, 3, stride=2)), r"parts\.0: stride 1 in the file, 2 in the network"),
        (_parts(nn.Conv2d(2, 4, 3, padding=1)), r"parts\.0: padding 0 in the file, 1 in the network"),
        (_parts(nn.Conv2d(2, 4, (3, 5))), r"parts\.0: kernel_size 3 in the file, \[3, 5\] in the network"),
        (_parts(nn.ConvTranspose2d(4, 2, 3)), "Conv2d in the file, ConvTranspose2d in the network"),
        (_parts(nn.Conv2d(4, 4, 3, groups=2)), "in 1 group in the file, .* in 2 groups in the network"),
        (nn.Sequential(), r"parts\.2: AvgPool2d in the file, not in the network"),
    ],
)
def test_other_layers_are_named(other: nn.Module, message: str, tmp_path: Path) -> None:
    path = dpap.save(_parts(), tmp_path / "parts.safetensors")
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        dpap.load(path, other)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_layers_that_the_file_does_not_have_are_named(tmp_path: Path) -> None:
    path = dpap.save(nn.Sequential(nn.Linear(3, 2)), tmp_path / "parts.safetensors")
    with pytest.raises(ValueError, match="1: Tanh in the network, not in the file"):
        dpap.load(path, nn.Sequential(nn.Linear(3, 2), nn.Tanh()))


def test_containers_may_be_renamed_and_settings_of_training_be_others(tmp_path: Path) -> None:
    path = dpap.save(_parts(), tmp_path / "parts.safetensors")
    dpap.load(path, _parts(activation=nn.ReLU(inplace=True), kind=RenamedParts))


def _encoder(nhead: int = 2, **settings: Any) -> nn.Module:
    return nn.Sequential(nn.TransformerEncoderLayer(8, nhead, 16, batch_first=True, **settings))


class Encoder(nn.TransformerEncoderLayer):
    """Renamed."""


@pytest.mark.parametrize(
    ("stored", "other", "message"),
    [
        (LIF(3.0), LIF(), r"tau 3\.0 in the file, 2\.0 in the network"),
        (LIF(threshold=0.4), LIF(), r"threshold 0\.4 in the file, 1\.0 in the network"),
        (PLIF(reset="soft"), PLIF(), "reset soft in the file, hard in the network"),
        (neuron.LIFNode(v_threshold=0.5), neuron.LIFNode(), r"v_threshold 0\.5 in the file, 1\.0 in"),
        (neuron.IFNode(v_reset=None), neuron.IFNode(), r"v_reset None in the file, 0\.0 in the network"),
        (_encoder(), _encoder(4), r"0\.self_attn: num_heads 2 in the file, 4 in the network"),
        (_encoder(), _encoder(norm_first=True), "0: norm_first False in the file, True in the network"),
        (_encoder(), _encoder(activation="gelu"), "0: activation relu in the file, gelu in the network"),
        (
            _encoder(),
            _encoder(activation=nn.GELU()),
            r"0\.activation: GELU in the network, not in the file",
        ),
        (
            nn.MultiheadAttention(8, 2, add_zero_attn=True),
            nn.MultiheadAttention(8, 2),
            "add_zero_attn True in the file, False in the network",
        ),
        (nn.Embedding(5, 3, max_norm=1.0), nn.Embedding(5, 3), r"max_norm 1\.0 in the file, None in"),
        (nn.Embedding(5, 3), nn.Embedding(5, 3, padding_idx=1), "padding_idx None in the file, 1 in"),
        (nn.Hardtanh(-2.0), nn.Hardtanh(), r"min_val -2\.0 in the file, -1\.0 in the network"),
        (nn.CrossMapLRN2d(3, alpha=0.1), nn.CrossMapLRN2d(3), r"alpha 0\.1 in the file, 0\.0001 in"),
    ],
)
def test_settings_that_no_tensor_shows_are_compared(
    stored: nn.Module, other: nn.Module, message: str, tmp_path: Path
) -> None:
    path = dpap.save(stored, tmp_path / "parts.safetensors")
    with pytest.raises(ValueError, match=message):
        dpap.load(path, other)


@pytest.mark.parametrize(
    ("stored", "other"),
    [
        (LIF(3.0), LIF(3.0, detach_reset=True, surrogate=Sigmoid())),
        (_encoder(), _encoder(dropout=0.5)),
        (_encoder(), nn.Sequential(Encoder(8, 2, 16, batch_first=True))),
        (
            nn.TransformerEncoder(Encoder(8, 2, 16, batch_first=True), 2),
            nn.TransformerEncoder(Encoder(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False),
        ),
    ],
)
def test_what_only_training_or_speed_depends_on_may_be_another(
    stored: nn.Module, other: nn.Module, tmp_path: Path
) -> None:
    path = dpap.save(stored, tmp_path / "parts.safetensors")
    dpap.load(path, other)
    for name, value in stored.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_a_file_of_before_that_lacks_settings_still_fits() -> None:
    model = nn.Sequential(LIF(3.0), *_encoder(), nn.Embedding(5, 3))
    structure = structure_of(model)
    assert structure["1"]["settings"]["activation"] == "relu"
    assert structure["1.self_attn"]["settings"]["num_heads"] == 2
    before = {
        path: {**layer, "settings": {}}
        for path, layer in structure.items()
        if path not in ("1", "1.self_attn")
    }
    assert differences(before, model) == []
    assert differences(structure, model) == []
    alone = nn.MultiheadAttention(8, 2)
    before = structure_of(alone)
    del before[""]
    assert differences(before, alone) == []


class Neuron(nn.Module):
    """A neuron that has a surrogate as a part, which is a layer only where the neuron is not registered."""

    def __init__(self) -> None:
        super().__init__()
        self.surrogate = nn.Sigmoid()

    def forward(self, current: Tensor) -> Tensor:
        return (current > 0).to(current.dtype)


def test_it_does_not_matter_when_a_neuron_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpap.anatomy.neurons._REGISTRY", dict(_REGISTRY))
    model = nn.Sequential(nn.Linear(3, 2), Neuron())
    unknown = structure_of(model)
    dpap.register_neuron(Neuron, spikes=True)
    known = structure_of(model)
    assert set(unknown) == {"0", "1.surrogate"} and set(known) == {"0", "1"}
    assert differences(unknown, model) == []
    monkeypatch.setattr("dpap.anatomy.neurons._REGISTRY", dict(_REGISTRY))
    assert differences(known, model) == []


@pytest.mark.parametrize(
    "layer",
    [
        lambda width: nn.Linear(5, width),
        lambda width: nn.Conv2d(4, 2 * width, 3, groups=2),
        lambda width: nn.Conv1d(width, width, 3, groups=width),
        lambda width: nn.Conv1d(width, 2 * width, 3, groups=width),
        lambda width: nn.ConvTranspose2d(width, width, 2, groups=width),
        lambda width: nn.ConvTranspose3d(3, width, 2),
        nn.BatchNorm1d,
        nn.PReLU,
    ],
)
@pytest.mark.parametrize("width", [1, 4])
def test_a_layer_with_the_tensors_of_a_smaller_one_becomes_that_one(
    layer: type[nn.Module], width: int
) -> None:
    small, large = layer(width), layer(8)
    stored = structure_of(small)
    assert differences(stored, large) == []
    for name, value in small.state_dict(keep_vars=True).items():
        large.state_dict(keep_vars=True)[name].data = value.data
    recount(large, stored[""])
    assert str(large) == str(small)


def test_depthwise_convolutions_are_no_grouped_ones() -> None:
    stored = structure_of(nn.Conv2d(4, 4, 3, groups=2))
    assert "in 2 groups in the file" in differences(stored, nn.Conv2d(4, 4, 3, groups=4))[0]
    twice = structure_of(nn.Conv2d(4, 8, 3, groups=4))
    assert "8 units that read 4 features" in differences(twice, nn.Conv2d(8, 8, 3, groups=8))[0]
