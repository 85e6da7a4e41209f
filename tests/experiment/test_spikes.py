from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from dpap.experiment.spikes import LAYERS, NEURONS, TIMESTEPS, spikes_record
from dpap.spiking import IF
from dpap.surgery.timesteps import silence_timesteps

CPU = torch.device("cpu")


class _Split:
    def __init__(self, x: Tensor) -> None:
        self.x = x

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield self.x, torch.tensor([3])


class _Data:
    def __init__(self, x: Tensor) -> None:
        self.test = _Split(x)


def recorded(model: nn.Module, x: Tensor) -> dict:
    record = spikes_record(model, _Data(x), CPU)
    assert record is not None
    return record


def test_spikes_are_those_of_the_network_and_silenced_timesteps_are_marked() -> None:
    neurons = IF()
    alive = torch.ones(4, 2, dtype=torch.bool)
    alive[1, 0] = False
    silence_timesteps(neurons, alive, 0, -1)
    current = torch.tensor([0.5, 1.0]).expand(4, 1, 2)
    record = recorded(nn.Sequential(neurons), current)
    assert record["label"] == 3 and record["timesteps"] == 4 and record["total_layers"] == 1
    layer = record["layers"][0]
    # the first fires at timesteps 2 and 4 and may not at 2; the second always
    assert [row["spikes"] for row in layer["rows"]] == ["0-01", "1111"]
    assert layer["spikes"] == 5 and layer["silenced"] == pytest.approx(1 / 8)
    assert len(neurons._forward_hooks) == 1  # that of the silenced timesteps


def test_of_a_channel_the_neuron_that_fires_most_is_kept() -> None:
    current = torch.zeros(2, 1, 3, 2, 2)
    current[:, 0, 1, 1, 0] = 1.0
    layer = recorded(nn.Sequential(IF()), current)["layers"][0]
    assert [row["spikes"] for row in layer["rows"]] == ["00", "11", "00"]
    assert (layer["units"], layer["neurons"], layer["spikes"]) == (3, 12, 2)


def test_the_record_is_bounded() -> None:
    model = nn.Sequential(*(IF() for _ in range(LAYERS + 2)))
    record = recorded(model, torch.ones(TIMESTEPS + 5, 1, 1000))
    assert len(record["layers"]) == LAYERS and record["total_layers"] == LAYERS + 2
    assert record["timesteps"] == TIMESTEPS + 5
    for layer in record["layers"]:
        assert len(layer["rows"]) == NEURONS and {len(row["spikes"]) for row in layer["rows"]} == {TIMESTEPS}
        units = [row["unit"] for row in layer["rows"]]
        assert units[0] == 0 and units[-1] == 999 and len(set(units)) == NEURONS


def test_one_unit_and_no_spiking_neurons() -> None:
    assert recorded(nn.Sequential(IF()), torch.ones(2, 1, 1))["layers"][0]["rows"] == [
        {"unit": 0, "spikes": "11"}
    ]
    assert spikes_record(nn.Linear(2, 2), _Data(torch.ones(1, 2)), CPU) is None
