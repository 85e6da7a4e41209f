"""Recorded activity is what a plain loop over the spikes gives."""

import pytest
import torch
from torch import nn

from dpap.anatomy import find_wiring, register_neuron
from dpap.anatomy.recording import Recorder, Recording
from dpap.models import NetworkConfig, build_network
from support.networks import OneStep, Stepped


def _record(model: nn.Module, inputs: torch.Tensor, forwards: int = 1, every: int = 1) -> list[Recording]:
    found: list[Recording] = []
    recorder = Recorder(model, find_wiring(model, (inputs,)), every, found.append)
    model.train()
    for _ in range(forwards):
        model(inputs)
    recorder.remove()
    model(inputs)
    return found


def test_spikes_are_counted_by_sample_unit_and_timestep() -> None:
    model = build_network(NetworkConfig(layers="4C3-AvgPool2-6C3-5FC-3FC", timesteps=3), (2, 6, 6), 3)
    spikes: dict[str, torch.Tensor] = {}
    model.spike2.register_forward_hook(lambda m, a, out: spikes.update(conv2=out.detach().clone()))
    model.fc1.register_forward_pre_hook(lambda m, a: spikes.update(into_fc1=a[0].detach().clone()))
    model.conv2.register_forward_pre_hook(lambda m, a: spikes.update(into_conv2=a[0].detach().clone()))
    (recording,) = _record(model, 2 * torch.rand(2, 2, 6, 6))
    outputs = {site.module: counts for site, counts in recording.outputs.items()}
    for t in range(3):
        for b in range(2):
            for c in range(6):
                assert outputs["spike2"][t, b, c] == spikes["conv2"][t, b, c].sum()
            assert torch.equal(recording.inputs["fc1"][t, b], spikes["into_fc1"].reshape(3, 2, -1)[t, b])
            total = spikes["into_conv2"].reshape(3, 2, -1)[t, b].sum()
            assert recording.inputs["conv2"][t, b, 0] == pytest.approx(float(total))
    assert recording.inputs["conv1"].shape == (1, 2, 1)


def test_ordinary_networks_have_one_timestep() -> None:
    model = nn.Sequential(
        nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2)
    )
    inputs = torch.rand(5, 2, 6)
    (recording,) = _record(model, inputs)
    outputs = {site.module: counts for site, counts in recording.outputs.items()}
    assert torch.allclose(outputs["1"][0], model[1](model[0](inputs)).sum(-1))
    assert recording.inputs["3"].shape == (1, 5, 12)


def test_neurons_stepped_in_a_loop_are_stacked_over_time() -> None:
    register_neuron(OneStep, spikes=True)
    (recording,) = _record(Stepped(), torch.rand(2, 5))
    (counts,) = recording.outputs.values()
    assert counts.shape == (4, 2, 8)
    assert recording.inputs["fc1"].shape == (4, 2, 5)


def test_every_nth_training_forward_is_recorded_and_no_other() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    assert len(_record(model, torch.rand(2, 3), forwards=7, every=3)) == 3
    found: list[Recording] = []
    Recorder(model, find_wiring(model, (torch.rand(2, 3),)), 1, found.append)
    model.eval()
    model(torch.rand(2, 3))
    model.train()
    with torch.no_grad():
        model(torch.rand(2, 3))
    assert not found
