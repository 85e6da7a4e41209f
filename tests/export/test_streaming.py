"""One timestep of a network, with its membranes as arguments: the spikes are those of a whole presentation."""

import pytest
import torch
from torch import Tensor, nn

from dpap.anatomy.frozen import frozen
from dpap.export.calls import Call, batch_axis_of, outcome
from dpap.export.report import ExportError
from dpap.export.streaming import Stepper, stepper_of
from dpap.models import NetworkConfig, build_network
from dpap.spiking import IF, LIF, PLIF, FoldTime
from dpap.surgery.timesteps import silence_timesteps

STEPS = 4


def network(**chosen: object) -> nn.Module:
    return build_network(NetworkConfig("3C3-BN-AvgPool2-7FC-3FC", timesteps=STEPS, **chosen), (1, 6, 6), 3)  # type: ignore[arg-type]


def stepper(model: nn.Module, example: Tensor) -> Stepper:
    call = Call.of(model, example)
    return stepper_of(model, call, batch_axis_of(model, call))


@pytest.mark.parametrize("silenced", [False, True])
@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize("chosen", [{}, {"neuron": "plif", "tau": 1.7, "reset": "soft"}, {"neuron": "if"}])
def test_the_spikes_of_a_whole_presentation(chosen: dict, frames: bool, silenced: bool) -> None:
    model = network(**chosen)
    if silenced:
        silence_timesteps(model.spike1, torch.rand(STEPS, 3) > 0.4, 0, -3)
    example = 3 * (torch.rand(STEPS, 2, 1, 6, 6) if frames else torch.rand(2, 1, 6, 6))
    with frozen(model):
        steps = stepper(model, example).whole()
        whole = outcome(model, lambda: model(example))
        assert len(steps) == STEPS
        for place, spikes in enumerate(whole.spikes.tensors):
            assert torch.equal(torch.cat([each.spikes.tensors[place] for each in steps]), spikes)
        assert sum(float(spikes.sum()) for spikes in whole.spikes.tensors) > 0
        mean = torch.stack([each.outputs["output"] for each in steps]).mean(0)
        torch.testing.assert_close(mean, whole.outputs["output"])
    assert "forward" not in vars(model.spike1)


class Repeats(nn.Module):
    """Shows an image for five timesteps, and takes nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.spike = nn.Linear(8, 4), LIF()

    def forward(self, x: Tensor) -> Tensor:
        return self.spike(self.fc(x).flatten(1).expand(5, -1, -1)).mean(0)


class Normalised(nn.Module):
    """Each timestep depends on all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.spike = IF()

    def forward(self, x: Tensor) -> Tensor:
        return self.spike(3 * (x - x.mean(0)))


@pytest.mark.parametrize(
    ("model", "example", "message"),
    [
        (Repeats(), torch.rand(3, 8), "takes frames"),
        (Normalised(), torch.rand(6, 40, 8), "depend on earlier ones by its membranes alone"),
        (nn.Sequential(nn.Linear(8, 3), nn.ReLU()), torch.rand(3, 8), "ran no spiking neurons"),
    ],
    ids=["own time", "over time", "no neurons"],
)
def test_what_has_no_single_timestep_is_refused(model: nn.Module, example: Tensor, message: str) -> None:
    with frozen(model), pytest.raises(ExportError, match=message):
        stepper(model, example)


def test_neurons_of_others_are_named() -> None:
    snn = pytest.importorskip("snntorch")
    model = nn.Sequential(nn.Linear(8, 3), snn.Leaky(0.5, init_hidden=True))
    with frozen(model), pytest.raises(ExportError, match=r"1 \(Leaky\)"):
        stepper(model, torch.rand(3, 8))


@pytest.mark.parametrize(
    ("model", "example", "axis"),
    [
        (nn.Linear(4, 3), torch.rand(2, 4), 0),
        (network(), torch.rand(2, 1, 6, 6), 0),
        (network(), torch.rand(3, 3, 1, 6, 6), 1),
        (nn.Sequential(FoldTime(nn.Linear(4, 4)), PLIF()), torch.rand(4, 4, 4), 1),
        # twice the sequence gives the same for each element, for attention is a mean
        (nn.TransformerEncoderLayer(4, 2, 8), torch.rand(5, 3, 4), 1),
        (nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), torch.rand(5, 3, 4), 0),
    ],
)
def test_the_axis_of_samples_is_found(model: nn.Module, example: Tensor, axis: int) -> None:
    with frozen(model):
        assert batch_axis_of(model, Call.of(model, example)) == axis


def test_a_network_of_fixed_batch_is_refused() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(2, 8) + 1

    with pytest.raises(ExportError, match="any number of samples"):
        batch_axis_of(Fixed(), Call.of(Fixed(), torch.rand(2, 8)))
    with pytest.raises(TypeError, match="example is what the network's forward takes"):
        Call.of(Fixed(), "a text")  # type: ignore[arg-type]


def test_arguments_keep_their_names() -> None:
    model = nn.Bilinear(3, 4, 2)
    assert Call.of(model, (torch.rand(2, 3), torch.rand(2, 4))).names == ["input1", "input2"]
    call = Call.of(model, {"input2": torch.rand(2, 4), "input1": torch.rand(2, 3)})
    assert call.names == ["input2", "input1"]
    assert model(call.inputs["input1"], call.inputs["input2"]).equal(call.run(model, call.tensors))
