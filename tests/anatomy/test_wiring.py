"""The wiring of a network: what can be pruned, and why the rest cannot."""

import pytest
import torch
from torch import Tensor, nn

from dpap.anatomy import find_wiring, register_neuron
from dpap.models import NetworkConfig, build_network
from support.networks import OneStep, Residual, Stepped

IMAGES = torch.rand(2, 1, 8, 8)


def test_the_table_lists_layers_units_and_prunability() -> None:
    wiring = find_wiring(build_network(NetworkConfig(timesteps=3), (1, 8, 8), 10), (IMAGES,))
    lines = str(wiring).splitlines()
    assert lines[0].split() == [
        "layer",
        "kind",
        "units",
        "features",
        "weights",
        "fed",
        "by",
        "seen",
        "at",
        "prunable",
    ]
    cells = [line.split() for line in lines[2:]]
    assert cells[0][:6] == ["conv1", "conv", "15", "1", "135", "input"]
    assert cells[2][:6] == ["fc1", "fc", "300", "160", "48,000", "conv2"]
    assert "network's output" in lines[-2]
    assert wiring.spiking
    assert wiring.layers["fc1"].synapses and not wiring.layers["conv2"].synapses


def _reason(model: nn.Module, example: Tensor, name: str) -> tuple[str, str]:
    layer = find_wiring(model, (example,)).layers[name]
    return layer.prunability, layer.reason


def test_an_activation_that_is_not_silent_at_zero_keeps_its_layer_whole() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Sigmoid(), nn.Linear(5, 2))
    prunability, reason = _reason(model, torch.rand(2, 4), "0")
    assert prunability == "whole" and "f(0) != 0" in reason


def test_a_norm_over_channels_only_silences() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6, bias=False), nn.ReLU(), nn.Linear(6, 2))
    prunability, reason = _reason(model, torch.rand(2, 4), "0")
    assert prunability != "prunable" and reason


def test_units_of_grouped_convolutions_can_leave() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)
    )
    assert _reason(model, IMAGES, "2") == ("prunable", "")
    assert _reason(model, IMAGES, "0") == ("prunable", "")


def test_units_added_to_the_input_cannot_leave() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.act, self.fc2 = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)

        def forward(self, values: Tensor) -> Tensor:
            return self.fc2(self.act(self.fc1(values) + values))

    assert _reason(Skip(), torch.rand(2, 4), "fc1")[0] != "prunable"


def test_an_unknown_spike_function_hides_no_unit() -> None:
    class Unknown(nn.Module):
        def forward(self, current: Tensor) -> Tensor:
            return (current > 0.1).to(current.dtype)

    model = nn.Sequential(nn.Linear(4, 5), Unknown(), nn.Linear(5, 2))
    assert _reason(model, torch.rand(2, 4), "0") == ("prunable", "")


def test_a_registered_neuron_is_transparent() -> None:
    register_neuron(OneStep, spikes=True)
    wiring = find_wiring(Stepped(), (torch.rand(2, 5),))
    assert wiring.layers["fc1"].prunability == "prunable"
    assert torch.equal(wiring.layers["fc2"].feeds["fc1"], torch.arange(8))


def test_register_neuron_expects_a_class() -> None:
    with pytest.raises(TypeError, match="ReLU"):
        register_neuron(nn.ReLU(), spikes=False)  # type: ignore[arg-type]


def test_a_network_without_weight_layers_is_an_error() -> None:
    with pytest.raises(ValueError, match="no weight layer"):
        find_wiring(nn.ReLU(), (torch.rand(2, 4),))


def test_renumbering_follows_a_removal() -> None:
    wiring = find_wiring(Residual(), (torch.rand(2, 2, 4, 4),))
    kept = torch.tensor([0, 2, 5])
    wiring.keep(
        {"stem": kept, "outer": kept},
        {"inner": kept, "side": kept, "norm": kept, "head": torch.tensor([0, 1, 2, 3, 4, 6, 9])},
    )
    assert wiring.layers["side"].feeds["outer"].tolist() == [0, 1, 2]
    assert wiring.layers["head"].feeds["stem"].tolist() == [-1, -1, -1, -1, 0, 1, 2]
    assert wiring.attachments["norm"].features == 3


def test_only_the_last_layer_is_called_the_networks_output() -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.last = nn.Linear(4, 6), nn.Linear(6, 7), nn.Linear(7, 3)
            self.table = nn.Parameter(torch.randn(3, 5))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            features = torch.relu(self.one(x))
            return self.last(torch.relu(self.two(features))), features

    model = Beside()
    assert _reason(model, torch.rand(2, 4), "last") == ("whole", "its units are the network's output")
    assert _reason(model, torch.rand(2, 4), "one") == (
        "whole",
        "its units reach the network's output, beside what they feed (two)",
    )

    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.table = nn.Linear(4, 6), nn.Parameter(torch.randn(5, 6))

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.hidden(x)) @ self.table.T

    _, reason = _reason(Table(), torch.rand(2, 4), "hidden")
    assert reason == "its units reach the network's output, with no weight layer in between"


def test_biases_behind_a_layer_are_not_its_activation() -> None:
    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix, self.bias = nn.Parameter(torch.randn(6, 6)), nn.Parameter(torch.ones(6))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x @ self.matrix + self.bias, x

    class Behind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.act, self.mixer, self.last = nn.Linear(4, 6), nn.ReLU(), Mixer(), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.mixer(self.act(self.one(x)))[0])

    _, reason = _reason(Behind(), torch.rand(2, 4), "one")
    assert "f(0)" not in reason and "mixer mixes its units and adds values of its own" in reason
