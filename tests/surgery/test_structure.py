"""Networks with tensors that would fit are distinguished by their layers."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dpap
from dpap.anatomy.neurons import _REGISTRY
from dpap.spiking import LIF
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
