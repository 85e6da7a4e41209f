import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dpap.models import RESNETS, NetworkConfig, SpikingNetwork, build_network
from dpap.models.resnet import SEWBlock
from dpap.spiking import SpikingNeuron
from support.sew_resnet import sew_resnet_module

IMAGENET = (3, 224, 224)


def images(number, side):
    digits = torch.tensor(load_digits().images[:number] / 16, dtype=torch.float32)[:, None]
    return nn.functional.interpolate(digits, (side, side), mode="bilinear").expand(-1, 3, -1, -1)


@pytest.mark.parametrize(
    "name, parameters, macs",
    [("resnet18", 11_689_512, 1.814e9), ("resnet50", 25_557_032, 4.089e9)],  # torchvision's documentation
)
def test_size_and_work_are_the_published_ones(name, parameters, macs):
    with torch.device("meta"):
        network = build_network(NetworkConfig(layers=name, neuron="relu"), IMAGENET, 1000)
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, *IMAGENET))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert counter.get_total_flops() / 2 == pytest.approx(macs, rel=3e-4)


def test_the_small_network_is_that_of_he_et_al():
    """Table 6: 0.27 million parameters; here with the convolutions of option B as shortcuts."""
    with torch.device("meta"):
        network = build_network(NetworkConfig(layers="resnet20", neuron="relu"), (3, 32, 32), 10)
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, 32, 32))
    assert sum(parameter.numel() for parameter in network.parameters()) == 272_474
    assert counter.get_total_flops() // 2 == 40_813_184
    weighted = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len([each for each in weighted if getattr(each, "kernel_size", None) != (1, 1)]) == 20
    assert len(weighted) == 22


def test_spikes_add_no_parameters():
    with torch.device("meta"):
        network = build_network(NetworkConfig(layers="resnet18", neuron="if"), IMAGENET, 1000)
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_689_512


@pytest.fixture
def sew_resnet():
    with sew_resnet_module() as module:
        yield module


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])  # it has no resnet20
def test_spiking_network_is_that_of_spikingjelly(sew_resnet, name):
    from spikingjelly.activation_based import functional, neuron

    theirs = getattr(sew_resnet, f"sew_{name}")(cnf="ADD", spiking_neuron=neuron.IFNode, num_classes=7)
    functional.set_step_mode(theirs, "m")
    ours = build_network(NetworkConfig(layers=name, neuron="if", timesteps=3), (3, 72, 72), 7)
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
    theirs.load_state_dict(ours.state_dict())
    x = images(2, 72)
    with torch.no_grad():
        for network in (ours.double(), theirs.double()):
            network.eval()
        repeated = x.double().repeat(3, 1, 1, 1, 1)
        expected = theirs(repeated)
        assert expected.abs().min() > 0
        torch.testing.assert_close(ours(x.double()), expected.mean(0))


def test_every_neuron_fires_at_the_start():
    network = build_network(NetworkConfig(layers="resnet18", width=0.25, timesteps=4), (3, 72, 72))
    assert isinstance(network, SpikingNetwork)
    rates = {}
    for child, module in network.named_modules():
        if isinstance(module, SpikingNeuron):
            module.register_forward_hook(lambda m, i, o, child=child: rates.update({child: o.mean().item()}))
    with torch.no_grad():
        network(images(16, 72))
    assert len(rates) == 1 + 2 * 8 + 3  # stem, branches, shortcuts
    assert all(0.005 < rate < 0.8 for rate in rates.values()), rates


@pytest.mark.parametrize("neuron", ["lif", "relu"])
@pytest.mark.parametrize("name", sorted(RESNETS))
def test_gradients_reach_every_parameter(name, neuron):
    network = build_network(NetworkConfig(layers=name, neuron=neuron, width=0.1, timesteps=2), (3, 32, 32))
    network(images(8, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("readout", ["current", "rate"])
def test_a_constant_image_is_the_image_repeated(readout):
    config = NetworkConfig(layers="resnet18", width=0.1, timesteps=3, readout=readout)
    network = build_network(config, (3, 32, 32)).eval()
    runs = []
    network.conv1.register_forward_hook(lambda module, args, output: runs.append(len(output)))
    with torch.no_grad():
        once, repeated = network(images(4, 32)), network(images(4, 32).repeat(3, 1, 1, 1, 1))
    torch.testing.assert_close(once, repeated)
    assert runs == [4, 12]


@pytest.mark.parametrize("side, map_side", [(32, 4), (64, 8), (65, 3), (224, 7)])
def test_small_inputs_keep_their_size_in_the_stem(side, map_side):
    with torch.device("meta"):
        network = build_network(
            NetworkConfig(layers="resnet18", neuron="relu", width=0.1), (3, side, side), 10
        )
        shapes = []
        network.layer4.register_forward_hook(lambda module, args, output: shapes.append(output.shape))
        network(torch.empty(1, 3, side, side))
    assert shapes[0][-2:] == (map_side, map_side)


@pytest.mark.parametrize("neuron", ["if", "relu"])
def test_blocks_can_start_as_identities(neuron):
    config = NetworkConfig(layers="resnet18", neuron=neuron, width=0.1, timesteps=2, zero_init=True)
    block = build_network(config, (3, 32, 32)).layer1[1]
    x = torch.rand(2, 5, 6, 8, 8) if isinstance(block, SEWBlock) else torch.rand(5, 6, 8, 8)
    assert torch.equal(block.eval()(x), x)
    with pytest.raises(ValueError, match="zero_init is for the residual networks resnet18"):
        NetworkConfig(zero_init=True)


def test_width_scales_every_stage():
    network = build_network(NetworkConfig(layers="resnet50", neuron="relu", width=0.5), (3, 32, 32), 10)
    assert network.conv1.out_channels == 32 and network.fc.in_features == 1024
