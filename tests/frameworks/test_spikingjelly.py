"""Networks of SpikingJelly, as its tutorials write them, are pruned exactly in their user's own loop."""

import copy
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import dpap
from dpap.anatomy import find_wiring, neuron_kind
from frameworks.learning import digits, learn, pruned
from support.sew_resnet import sew_resnet_module

neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
layer = pytest.importorskip("spikingjelly.activation_based.layer")
functional = pytest.importorskip("spikingjelly.activation_based.functional")
surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")

STEPS = 4


class CSNN(nn.Module):
    """The network of the Fashion-MNIST tutorial, for images of 8 x 8."""

    def __init__(self, make: Callable[[], nn.Module], step_mode: str, channels: int = 8) -> None:
        super().__init__()
        self.conv_fc = nn.Sequential(
            layer.Conv2d(1, channels, kernel_size=3, padding=1, bias=False),
            layer.BatchNorm2d(channels),
            make(),
            layer.MaxPool2d(2, 2),
            layer.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            layer.BatchNorm2d(channels),
            make(),
            layer.MaxPool2d(2, 2),
            layer.Flatten(),
            layer.Linear(channels * 2 * 2, 32, bias=False),
            make(),
            layer.Linear(32, 10, bias=False),
        )
        for norm in (self.conv_fc[1], self.conv_fc[5]):
            # so that neurons that halve their input fire too
            nn.init.constant_(norm.weight, 3.0)
        functional.set_step_mode(self, step_mode)
        self.step_mode = step_mode

    def forward(self, images: Tensor) -> Tensor:
        if self.step_mode == "m":
            return self.conv_fc(images.expand(STEPS, *images.shape))
        return torch.stack([self.conv_fc(images) for _ in range(STEPS)])


def _present(model: nn.Module, images: Tensor) -> Tensor:
    output = model(images)
    functional.reset_net(model)
    return output


KINDS = {
    "if": lambda: neuron.IFNode(surrogate_function=surrogate.ATan()),
    "plif": lambda: neuron.ParametricLIFNode(surrogate_function=surrogate.ATan(), detach_reset=True),
    "soft": lambda: neuron.LIFNode(v_reset=None, surrogate_function=surrogate.ATan()),
    "simple": lambda: neuron.SimpleLIFNode(2.0, False),
    "cuba": lambda: neuron.CUBALIFNode(),
}


@pytest.mark.parametrize("step_mode", ["m", "s"])
@pytest.mark.parametrize("kind", KINDS)
def test_convolutional_networks(kind: str, step_mode: str) -> None:
    model = CSNN(KINDS[kind], step_mode)
    pruned(model, _present, {"conv_fc.0", "conv_fc.4", "conv_fc.9"})


def test_layers_of_torch_in_containers_for_sequences() -> None:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [
            layer.SeqToANNContainer(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)),
            neuron.LIFNode(step_mode="m", surrogate_function=surrogate.ATan()),
            layer.SeqToANNContainer(nn.MaxPool2d(2)),
        ]

    model = nn.Sequential(
        *block(1, 6), *block(6, 8), layer.SeqToANNContainer(nn.Flatten(), nn.Linear(32, 10))
    )

    def present(network: nn.Module, images: Tensor) -> Tensor:
        output = network(images.expand(STEPS, *images.shape))
        functional.reset_net(network)
        return output

    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    wiring = find_wiring(model, (digits(4)[0].expand(STEPS, 4, 1, 8, 8),))
    assert [name for name, found in wiring.layers.items() if found.prunability == "prunable"] == [
        "0.0",
        "3.0",
    ]
    config = dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=1, min_units=1)
    pruner = dpap.Pruner(model, digits(4)[0].expand(STEPS, 4, 1, 8, 8), optimizer, config)
    learn(model, present, optimizer)
    pruner.step()
    silent = copy.deepcopy(model).eval()
    pruner.compact()
    images = digits(16)[0]
    with torch.no_grad():
        assert torch.allclose(present(model.eval(), images), present(silent, images), atol=1e-4)


def test_parameters_of_each_channel_are_removed_with_it() -> None:
    channels = 8
    model = CSNN(lambda: neuron.IFNode(surrogate_function=surrogate.ATan()), "m", channels)
    model.conv_fc[2] = neuron.GatedLIFNode(T=STEPS, inplane=channels, init_v_threshold=0.2)
    pruned(model, _present, {"conv_fc.0", "conv_fc.4", "conv_fc.9"}, target=0.6)
    gated = model.conv_fc[2]
    assert gated.alpha.shape == (model.conv_fc[0].out_channels,)
    assert gated.conduct.shape == (STEPS, model.conv_fc[0].out_channels)


def test_a_loop_over_time_outside_the_network_and_a_compaction_within_it() -> None:
    model = CSNN(KINDS["plif"], "s").conv_fc
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()

    def present(network: nn.Module, images: Tensor) -> Tensor:
        functional.reset_net(network)
        return torch.stack([network(images) for _ in range(STEPS)])

    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    config = dpap.PruningConfig(target=0.6, start_epoch=0, end_epoch=1, min_units=1)
    pruner = dpap.Pruner(model, digits(4)[0], optimizer, config)
    assert pruner.wiring.stepped
    learn(model, present, optimizer)
    pruner.step()
    images = digits(16)[0]
    model.eval()
    with torch.no_grad():
        present(model, images)
        silent = copy.deepcopy(model)
        pruner.compact()
        assert model[2].v.shape[1] == model[0].out_channels
        assert model[10].v.shape[1] == model[9].out_features < 32
        for _ in range(STEPS):
            assert torch.allclose(model(images), silent(images), atol=1e-4)


def test_neurons_with_weights_between_units_have_no_kind() -> None:
    assert neuron_kind(neuron.MPBNLIFNode(out_features=4, mpbn=True)) is None


@pytest.fixture
def sew_resnet() -> Iterator[ModuleType]:
    with sew_resnet_module() as module:
        yield module


def test_residual_network(sew_resnet: ModuleType) -> None:
    model = sew_resnet.sew_resnet18(
        cnf="ADD", num_classes=10, spiking_neuron=neuron.IFNode, surrogate_function=surrogate.ATan()
    )
    functional.set_step_mode(model, "m")
    images = 3 * torch.rand(2, 2, 3, 32, 32)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    config = dpap.PruningConfig(target=0.7, start_epoch=0, end_epoch=1, observe_every=1, min_units=1)
    pruner = dpap.Pruner(model, (images,), optimizer, config)
    layers = pruner.wiring.layers.items()
    assert [name for name, found in layers if found.prunability != "prunable"] == ["fc"]
    _present(model.train(), images).square().sum().backward()
    optimizer.step()
    pruner.step()
    silent = copy.deepcopy(model)
    report = pruner.compact()
    assert report.parameters_after < 0.8 * report.parameters_before
    with torch.no_grad():
        expected, output = (_present(network.double().eval(), images.double()) for network in (silent, model))
    assert expected.abs().max() > 0
    assert torch.allclose(expected, output, rtol=0, atol=1e-10)
