import math
from dataclasses import asdict

import pytest
from jsonargparse import auto_cli

from dpap.models import PRESETS, NetworkConfig


@pytest.mark.parametrize(
    "field, value",
    [
        ("layers", "15X3-10FC"),
        ("surrogate", "heaviside"),
        ("timesteps", 0),
        ("width", 0.0),
        ("width", math.inf),
    ],
)
def test_wrong_values_are_refused(field, value):
    with pytest.raises(ValueError):
        NetworkConfig(**{field: value})


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_layers(name):
    assert NetworkConfig(layers=name).layers == name


def test_only_rectifiers_do_not_spike():
    assert not NetworkConfig(neuron="relu").spiking
    assert all(NetworkConfig(neuron=neuron).spiking for neuron in ("lif", "if", "plif"))


def test_is_a_command_line():
    def network(network: NetworkConfig = NetworkConfig()) -> NetworkConfig:  # noqa: B008
        return network

    flags = ["--network.layers=20C5P0-10FC", "--network.neuron=if", "--network.surrogate_parameter=3"]
    assert asdict(auto_cli(network, args=flags)) == asdict(
        NetworkConfig(layers="20C5P0-10FC", neuron="if", surrogate_parameter=3.0)
    )


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"fc_neuron": "relu"}, "fc_neuron must be one of lif, if, plif; got 'relu'"),
        ({"fc_surrogate": "arctn"}, "fc_surrogate must be one of .* got 'arctn'.*arctan"),
        ({"fc_surrogate_parameter": 0.5}, "needs fc_surrogate"),
        ({"neuron": "relu", "fc_threshold": 0.5}, "fc_threshold is of spiking neurons"),
    ],
)
def test_neurons_of_fully_connected_layers_are_checked(unchecked, wrong, words):
    with pytest.raises(ValueError, match=words):
        NetworkConfig(**wrong)
