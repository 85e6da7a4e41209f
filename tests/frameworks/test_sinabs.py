"""sinabs' neurons, whose state stays from call to call in buffers that a state_dict stores."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

import dpap
from dpap.anatomy.hidden_state import reset_state
from dpap.anatomy.neurons import neuron_kind

layers = pytest.importorskip("sinabs.layers")


def network(kind: str) -> nn.Sequential:
    spiking = partial_of(kind)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), spiking(), nn.AvgPool2d(2), nn.Conv2d(8, 8, 3), spiking(), nn.Flatten(), nn.Linear(72, 4)
    )  # fmt: skip


def partial_of(kind: str) -> Callable[[], nn.Module]:
    options = {} if kind.startswith("IAF") else {"tau_mem": 20.0}
    return lambda: getattr(layers, kind)(batch_size=2, **options)


@pytest.mark.parametrize("kind", ["IAFSqueeze", "LIFSqueeze"])
def test_units_leave_with_their_states_although_the_network_had_none_when_it_was_wired(kind: str) -> None:
    model = network(kind)
    with torch.no_grad():
        for layer in (model[0], model[3]):
            layer.weight.abs_().mul_(4)
    images = torch.rand(10, 1, 12, 12)  # five timesteps of two samples
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    config = dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=1, target_of="macs", observe_every=1)
    pruner = dpap.Pruner(model, (images,), optimizer, config)
    assert [pruner.wiring.layers[name].prunability for name in ("0", "3")] == ["prunable", "prunable"]
    for _ in range(2):
        reset_state(model)
        optimizer.zero_grad()
        model(images).square().sum().backward()
        optimizer.step()
    pruner.step()
    silent = copy.deepcopy(model)
    report = pruner.compact()
    assert report.parameters_after < report.parameters_before
    # the states that the last batch left are sliced too
    with torch.no_grad():
        expected, output = silent.eval()(images), model.eval()(images)
    assert expected.abs().max() > 0
    torch.testing.assert_close(output, expected)


def test_what_leaks_and_does_not_spike_is_no_spiking_neuron() -> None:
    assert neuron_kind(layers.ExpLeak(tau_mem=10.0)).spikes is False
    assert neuron_kind(layers.LIF(tau_mem=10.0)).spikes is True
    recurrent = layers.LIFRecurrent(tau_mem=10.0, rec_connect=nn.Linear(4, 4))
    assert neuron_kind(recurrent) is None  # it connects units
