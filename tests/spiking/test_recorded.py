"""torch.export and torch.jit.trace record networks of spiking neurons, with gradients on and off, bit for bit."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from dpap.models import NetworkConfig, build_network
from dpap.spiking import IF, LIF, PLIF, FoldTime, SpikingNeuron, over_time
from dpap.spiking.recorded import recording, watched
from dpap.surgery.timesteps import silence_timesteps

pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]
STEPS = 5


def networks() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    image = 2 * torch.rand(3, 1, 6, 6)

    def network(**chosen: object) -> nn.Module:
        return build_network(
            NetworkConfig("4C3-BN-AvgPool2-9FC-3FC", timesteps=STEPS, **chosen), (1, 6, 6), 3
        )  # type: ignore[arg-type]

    silenced = network()
    silence_timesteps(silenced.spike1, torch.rand(STEPS, 4) > 0.4, 0, -3)
    silence_timesteps(silenced.spike_fc1, torch.rand(STEPS, 9) > 0.4, 0, -1)
    frames = torch.rand(STEPS, 3, 8)
    own = nn.Sequential(FoldTime(nn.Linear(8, 6)), PLIF(2.6, reset="soft"), FoldTime(nn.Linear(6, 2)), IF())
    return {
        "silenced timesteps": (silenced, image),
        "learned tau, soft reset": (network(neuron="plif", tau=3.3, reset="soft"), image),
        "no leak, spikes out": (network(neuron="if", readout="rate"), image),
        "frames": (own, 3 * frames),
    }


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("name", list(networks()))
def test_exported_programs_give_the_same_bits(name: str, gradients: bool, unchecked: None) -> None:
    model, example = networks()[name]
    model.eval()
    with torch.set_grad_enabled(gradients):
        program = torch.export.export(model, (example,), strict=False).module()
        assert torch.equal(program(example), model(example))
        assert torch.equal(program(example.flip(-1)), model(example.flip(-1)))


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("name", list(networks()))
def test_traces_are_saved_and_give_the_same_bits(
    name: str, gradients: bool, tmp_path: Path, unchecked: None
) -> None:
    model, example = networks()[name]
    model.eval()
    with torch.set_grad_enabled(gradients):
        torch.jit.trace(model, (example,)).save(tmp_path / "trace.pt")
        trace = torch.jit.load(tmp_path / "trace.pt")
        assert torch.equal(trace(example.flip(-1)), model(example.flip(-1)))


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("make", [IF, LIF, lambda **rule: LIF(3.7, **rule), lambda **rule: PLIF(1.4, **rule)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_watched_operations_give_the_same_bits(make, reset: str, dtype: torch.dtype) -> None:
    neuron: SpikingNeuron = make(reset=reset)
    current = (3 * torch.rand(7, 4, 33)).to(dtype)
    constant = over_time(current[0], 7)
    expected = neuron(current), neuron(constant)
    assert not recording()
    with watched():
        assert recording()
        found = neuron(current), neuron(over_time(current[0], 7))
    assert not recording()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
        assert 0 < one.float().mean() < 1


COMPILED = """
import torch
from dpap.models import NetworkConfig, build_network
model = build_network(NetworkConfig("4C3-BN-AvgPool2-9FC-3FC", timesteps=3), (1, 6, 6), 3)
found = torch._dynamo.explain(model)(torch.rand(2, 1, 6, 6))
assert found.graph_count == 1, found.break_reasons
"""


def test_a_compiled_network_stays_one_graph() -> None:
    # in a process of its own, without the type checks of these tests, over which the compiler stumbles
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
