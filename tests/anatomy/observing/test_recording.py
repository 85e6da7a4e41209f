"""Recorded activity is what a plain loop over the spikes gives."""

import copy
import io
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from dpap.anatomy import find_wiring, register_neuron
from dpap.anatomy.observing.recording import Recorder, Recording
from dpap.models import NetworkConfig, build_network
from dpap.spiking import IF
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


def test_one_of_n_training_forwards_is_recorded_and_no_other() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    assert len(_record(model, torch.rand(2, 3), forwards=9, every=3)) == 3 + 1 + 1
    found: list[Recording] = []
    Recorder(model, find_wiring(model, (torch.rand(2, 3),)), 1, found.append)
    model.eval()
    model(torch.rand(2, 3))
    model.train()
    with torch.no_grad():
        model(torch.rand(2, 3))
    assert not found


class Membrane(OneStep):
    """Like OneStep, with spikes and membrane as output, and a reset."""

    def forward(self, current: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(current), self.membrane

    def reset_mem(self) -> None:
        self.membrane = torch.zeros(())


class SingleStep(nn.Module):
    """A network in which each forward is one timestep."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.neuron, self.fc2 = nn.Linear(5, 8), Membrane(), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc2(self.neuron(self.fc1(images))[0])


def test_timesteps_between_two_optimizer_steps_are_one_presentation() -> None:
    register_neuron(Membrane, spikes=True)
    model = SingleStep()
    optimizer = SGD(model.parameters(), 0.0)
    found: list[Recording] = []
    recorder = Recorder(model, find_wiring(model, (torch.rand(2, 5),)), 2, found.append, (optimizer,))
    spikes: list[Tensor] = []
    model.neuron.register_forward_hook(lambda m, a, out: spikes.append(out[0].detach()))
    presented = []
    for presentation in range(6):
        model.neuron.reset_mem()
        images = 4 * torch.rand(3, 5 + presentation, 5)
        loss = sum(model(images[:, step]).sum() for step in range(5 + presentation))
        assert isinstance(loss, Tensor)
        loss.backward()
        optimizer.step()
        presented.append((images.transpose(0, 1), torch.stack(spikes)))
        spikes.clear()
    assert [len(next(iter(recording.outputs.values()))) for recording in found] == [5, 6, 8, 9]
    for recording, (images, emitted) in zip(found, [presented[at] for at in (0, 1, 3, 4)], strict=True):
        assert torch.equal(recording.inputs["fc1"], images)
        assert torch.equal(next(iter(recording.outputs.values())), emitted)
    taken = recorder.sampler.takes_next
    model(torch.rand(3, 5))
    recorder.begin_epoch()
    assert len(found) == 4 + taken
    recorder.remove()
    model(torch.rand(3, 5))
    optimizer.step()
    assert len(found) == 4 + taken


def test_every_forward_is_recorded_while_gradients_accumulate() -> None:
    model = build_network(NetworkConfig(layers="4C3-AvgPool2-5FC-3FC", timesteps=3), (2, 6, 6), 3)
    inputs = torch.rand(2, 2, 6, 6)
    optimizer = SGD(model.parameters(), 0.1)
    found: list[Recording] = []
    Recorder(model, find_wiring(model, (inputs,)), 1, found.append, (optimizer,))
    for _ in range(3):
        model(inputs).sum().backward()
    assert len(found) == 3


def test_functional_activations_are_recorded_where_they_enter_the_next_layer() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 3)
            self.fc1, self.fc2 = nn.Linear(4 * 4 * 4, 5), nn.Linear(5, 2)

        def forward(self, images: Tensor) -> Tensor:
            maps = torch.relu(self.conv2(torch.relu(self.conv1(images))))
            return self.fc2(input=torch.relu(self.fc1(maps.flatten(1))))

    model, images = Functional(), torch.randn(2, 2, 6, 6)
    (recording,) = _record(model, images)
    outputs = {site.module: activity for site, activity in recording.outputs.items()}
    first = torch.relu(model.conv1(images))
    second = torch.relu(model.conv2(first))
    assert torch.allclose(outputs["conv2"][0], first.sum((2, 3)), atol=1e-5)
    assert torch.allclose(outputs["fc1"][0], second.flatten(1))
    assert torch.allclose(outputs["fc2"][0], torch.relu(model.fc1(second.flatten(1))))


def test_layers_called_several_times_are_summed_without_time() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.shared, self.conv2 = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
            self.relu = nn.ReLU()

        def forward(self, images: Tensor) -> Tensor:
            maps = self.relu(self.conv1(images))
            return self.conv2(self.relu(self.shared(self.relu(self.shared(maps)))))

    model, images = Twice(), torch.randn(2, 3, 6, 6)
    (recording,) = _record(model, images)
    first = torch.relu(model.conv1(images))
    second = torch.relu(model.shared(first))
    assert recording.inputs["shared"].shape == (1, 2, 1)
    assert torch.allclose(recording.inputs["shared"][0, :, 0], (first + second).sum((1, 2, 3)), rtol=1e-4)


def test_groups_are_recorded_separately() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, groups=2), nn.ReLU(), nn.Conv2d(4, 2, 1)
    )
    images = torch.randn(3, 2, 7, 7)
    (recording,) = _record(model, images)
    maps = torch.relu(model[0](images))
    for group in range(2):
        expected = maps[:, 3 * group : 3 * group + 3].sum((1, 2, 3))
        assert torch.allclose(recording.inputs["2"][0, :, group], expected, rtol=1e-4)


def test_rates_and_spikes_of_one_network_share_its_time() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.conv, self.fc = nn.Linear(4, 6), nn.Conv1d(6, 5, 1), nn.Linear(5, 3)
            self.relu, self.spike, self.last = nn.ReLU(), IF(), nn.Linear(3, 2)

        def forward(self, images: Tensor) -> Tensor:
            rates = self.relu(self.encode(images))
            spikes = self.spike(rates.expand(4, *rates.shape))
            maps = torch.relu(self.conv(spikes.flatten(0, 1).unsqueeze(-1))).squeeze(-1)
            return self.last(torch.relu(self.fc(maps))).unflatten(0, (4, -1)).mean(0)

    model, images = Mixed(), 4 * torch.rand(2, 4)
    spikes: list[Tensor] = []
    model.spike.register_forward_hook(lambda m, a, out: spikes.append(out.detach()))
    (recording,) = _record(model, images)
    outputs = {site.module: activity for site, activity in recording.outputs.items()}
    assert outputs["relu"].shape == (1, 2, 6)
    maps = torch.relu(model.conv(spikes[-1].flatten(0, 1).unsqueeze(-1))).squeeze(-1)
    assert torch.allclose(outputs["fc"], maps.unflatten(0, (4, 2)))
    assert recording.inputs["fc"].shape == (4, 2, 5)
    assert recording.inputs["encode"].shape == (1, 2, 4)


def test_copies_of_the_network_do_not_record_and_hold_nothing_of_the_recorder() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    found: list[Recording] = []
    large = torch.zeros(100_000)

    def receive(recording: Recording) -> None:
        found.append(recording)
        assert len(large)

    Recorder(model, find_wiring(model, (torch.rand(2, 3),)), 1, receive)
    copied = copy.deepcopy(model)
    copied(torch.rand(2, 3)).sum().backward()
    assert not found
    file = io.BytesIO()
    torch.save(model, file)
    assert file.tell() < 20_000
    model(torch.rand(2, 3))
    assert len(found) == 1


COMPILED = """
import torch
from torch import nn
from dpap.anatomy import find_wiring
from dpap.anatomy.observing.recording import Recorder

model, found = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), []
Recorder(model, find_wiring(model, (torch.rand(2, 3),)), 2, found.append)
compiled = torch.compile(model, backend="eager")
batches = [torch.rand(2, 3) for _ in range(5)]
for batch in batches:
    compiled(batch)
assert len(found) == 4
for recording, batch in zip(found, [batches[at] for at in (0, 1, 3, 4)], strict=True):
    assert torch.equal(recording.inputs["0"][0], batch)
"""


def test_compiled_networks_are_recorded() -> None:
    # in a process of its own, without the type checks of these tests, over which the compiler stumbles
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
