"""Networks of snnTorch, as its tutorials write them, are pruned exactly in their user's own loop."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import dpap
from dpap.anatomy import find_wiring, neuron_kind
from dpap.surgery.trial import try_removal
from frameworks.learning import digits, learn, pruned

snn = pytest.importorskip("snntorch")
surrogate = pytest.importorskip("snntorch.surrogate")
utils = pytest.importorskip("snntorch.utils")

STEPS = 5


class ConvNet(nn.Module):
    """The convolutional network of tutorial 6, which keeps the membranes in its forward."""

    def __init__(self, neuron: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1, self.lif1 = nn.Conv2d(1, 6, 3), neuron(6)
        self.conv2, self.lif2 = nn.Conv2d(6, 8, 2), neuron(8)
        self.fc1, self.lif3 = nn.Linear(8, 10), snn.Leaky(0.5)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mem1, mem2, mem3 = self.lif1.init_leaky(), self.lif2.init_leaky(), self.lif3.init_leaky()
        spikes, membranes = [], []
        for _ in range(STEPS):
            spk1, mem1 = self.lif1(nn.functional.max_pool2d(self.conv1(images), 2), mem1)
            spk2, mem2 = self.lif2(nn.functional.max_pool2d(self.conv2(spk1), 2), mem2)
            spk3, mem3 = self.lif3(self.fc1(spk2.flatten(1)), mem3)
            spikes.append(spk3)
            membranes.append(mem3)
        return torch.stack(spikes), torch.stack(membranes)


def _sequential(make: Callable[..., nn.Module]) -> nn.Sequential:
    """The network of tutorial 7, which keeps the membranes in its neurons."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.MaxPool2d(2),
        make(init_hidden=True),
        nn.Conv2d(6, 8, 2),
        make(init_hidden=True),
        nn.Flatten(),
        nn.Linear(32, 10),
        make(init_hidden=True, output=True),
    )


def _stepped(model: nn.Module, images: Tensor) -> Tensor:
    """The loop over time outside the network."""
    utils.reset(model)
    for module in model.modules():
        if isinstance(module, snn.SpikingNeuron):
            module.reset_mem()
    return torch.stack([model(images)[1] for _ in range(STEPS)])


@pytest.mark.parametrize("learned", [False, True])
def test_membranes_kept_by_the_user(learned: bool) -> None:
    def neuron(units: int) -> nn.Module:
        gradient = surrogate.fast_sigmoid(slope=25)
        if not learned:
            return snn.Leaky(0.5, spike_grad=gradient)
        per_channel = {"beta": 0.5 + torch.rand(units, 1, 1) / 2, "threshold": 0.5 + torch.rand(units, 1, 1)}
        return snn.Leaky(**per_channel, learn_beta=True, learn_threshold=True, spike_grad=gradient)

    model = ConvNet(neuron)
    pruned(model, lambda network, images: network(images)[1], {"conv1", "conv2"})
    if learned:
        assert len(model.lif1.beta) == len(model.lif1.threshold) == model.conv1.out_channels < 6
        assert len(model.lif2.beta) == len(model.lif2.threshold) == model.conv2.out_channels < 8


@pytest.mark.parametrize(
    "make",
    [
        lambda **options: snn.Leaky(0.7, reset_mechanism="zero", **options),
        lambda **options: snn.Synaptic(0.5, 0.7, **options),
        lambda **options: snn.Alpha(0.9, 0.5, **options),
        lambda **options: snn.Lapicque(0.7, **options),
    ],
    ids=["leaky", "synaptic", "alpha", "lapicque"],
)
def test_membranes_kept_by_the_neurons(make: Callable[..., nn.Module]) -> None:
    model = _sequential(make)
    pruner = pruned(model, _stepped, {"0", "3"})
    assert pruner.wiring.stepped
    assert model[2].mem.shape[1] == model[0].out_channels


def test_a_compaction_within_a_presentation_slices_the_membranes() -> None:
    model = _sequential(lambda **options: snn.Synaptic(0.5, 0.7, **options))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    config = dpap.PruningConfig(target=0.6, start_epoch=0, end_epoch=1, min_units=1)
    pruner = dpap.Pruner(model, digits(4)[0], optimizer, config)
    learn(model, _stepped, optimizer)
    pruner.step()
    images = digits(16)[0]
    with torch.no_grad():
        _stepped(model, images)
        silent = copy.deepcopy(model)
        assert float(silent[2].syn.abs().sum()) > 0
        pruner.compact()
        units = model[0].out_channels
        assert units < 6
        assert model[2].mem.shape[1] == model[2].syn.shape[1] == units
        for _ in range(STEPS):
            assert torch.allclose(model(images)[1], silent(images)[1], atol=1e-4)


def test_a_loop_around_a_network_that_takes_its_membranes_as_arguments() -> None:
    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(64, 20), snn.Leaky(0.8)
            self.fc2, self.lif2 = nn.Linear(20, 10), snn.Leaky(0.8)

        def forward(self, images: Tensor, mem1: Tensor, mem2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            spk1, mem1 = self.lif1(self.fc1(images.flatten(1)), mem1)
            _, mem2 = self.lif2(self.fc2(spk1), mem2)
            return mem2, mem1, mem2

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step = Step()

        def forward(self, images: Tensor) -> Tensor:
            mem1, mem2 = self.step.lif1.reset_mem(), self.step.lif2.reset_mem()
            outputs = []
            for _ in range(STEPS):
                output, mem1, mem2 = self.step(images, mem1, mem2)
                outputs.append(output)
            return torch.stack(outputs)

    pruned(Loop(), lambda network, images: network(images), {"step.fc1"})
    # alone it returns its membranes, whose size must stay
    wiring = find_wiring(Step(), (digits(4)[0], torch.zeros(4, 20), torch.zeros(4, 10)))
    assert wiring.layers["fc1"].prunability == "whole"


@pytest.mark.parametrize(
    ("make", "before"),
    [
        (lambda: snn.RLeaky(0.5, linear_features=12, init_hidden=True), "silenced"),
        (lambda: snn.RSynaptic(0.5, 0.5, linear_features=12, init_hidden=True), "silenced"),
        # its own units never leave, and what it reads does
        (lambda: snn.SLSTM(12, 12, init_hidden=True), "prunable"),
    ],
    ids=["rleaky", "rsynaptic", "slstm"],
)
def test_units_of_recurrent_neurons_keep_their_number(make: Callable[[], nn.Module], before: str) -> None:
    recurrent = make()
    assert neuron_kind(recurrent) is None
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 9),
        snn.Leaky(0.5, init_hidden=True),
        nn.Linear(9, 12),
        recurrent,
        nn.Linear(12, 10),
    )
    wiring = find_wiring(model, (digits(4)[0],))
    try_removal(model, wiring, (digits(4)[0],))
    assert wiring.layers["3"].prunability == before
    assert wiring.layers["1"].prunability == "prunable"
    assert not any(layer.removable for name, layer in wiring.layers.items() if name.startswith("4"))
