from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import nn

from dpap.models import PRESETS, NetworkConfig, SpikingNetwork, build_network, initialise
from dpap.spiking import IF, LIF, PLIF, SpikingNeuron, Triangle

SHAPES = {"snn_6conv2fc": (3, 32, 32), "vgg16": (3, 32, 32)}
SMALL = "4C3-BN-AvgPool2-6C3-MaxPool2-Dropout0.3-12FC-BN-10FC"


def digits(number, shape):
    images = torch.tensor(load_digits().images[:number] / 16, dtype=torch.float32)[:, None]
    return nn.functional.interpolate(images, shape[1:], mode="bilinear").expand(number, *shape)


def weights(network):
    return sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear))


@pytest.mark.parametrize(
    "name, count",
    [
        ("snn_2fc", 635_200),
        ("snn_2conv2fc", 596_535),  # Fig. 2c of the paper
        ("ann_2conv2fc", 430_500),  # LeNet-5 as Caffe and most pruning papers have it
        ("snn_6conv2fc", 21_356_928),
        ("vgg16", 14_710_464 + 2 * 512 * 512 + 5_120),  # its 13 convolutions are those of ImageNet's
    ],
)
def test_weights_of_the_presets(name, count):
    with torch.device("meta"):
        network = build_network(NetworkConfig(layers=name), SHAPES.get(name, (1, 28, 28)))
    assert weights(network) == count


def test_children_are_named_in_order():
    spiking = build_network(NetworkConfig(layers=SMALL), (1, 8, 8))
    assert [name for name, _ in spiking.named_children()] == [
        "conv1", "bn1", "spike1", "pool1", "conv2", "spike2", "pool2", "dropout1", "flatten",
        "fc1", "bn_fc1", "spike_fc1", "fc2",
    ]  # fmt: skip
    rectifier = build_network(NetworkConfig(layers=SMALL, neuron="relu"), (1, 8, 8))
    assert [name for name, _ in rectifier.named_children()] == [
        name.replace("spike", "relu") for name, _ in spiking.named_children()
    ]
    assert not any(module.inplace for module in rectifier if isinstance(module, nn.ReLU))


@pytest.mark.parametrize("neuron, kind", [("lif", LIF), ("if", IF), ("plif", PLIF)])
def test_neurons_are_as_configured(neuron, kind):
    config = NetworkConfig(
        layers="4C3-10FC", neuron=neuron, tau=3.0, threshold=0.7, reset="soft", detach_reset=True,
        surrogate="triangle", surrogate_parameter=1.5,
    )  # fmt: skip
    spike = build_network(config, (1, 8, 8)).spike1
    assert isinstance(spike, kind) and getattr(spike, "tau", 3.0) == pytest.approx(3.0)
    assert (spike.threshold, spike.reset, spike.detach_reset) == (0.7, "soft", True)
    assert spike.surrogate == Triangle(1.5)


@pytest.mark.parametrize("readout", ["current", "rate"])
@pytest.mark.parametrize("layers", ["snn_2conv2fc", SMALL, "20FC-10FC", "10FC"])
def test_a_constant_image_is_the_image_repeated(layers, readout):
    network = build_network(NetworkConfig(layers=layers, readout=readout, timesteps=5), (1, 8, 8)).eval()
    images = digits(6, (1, 8, 8))
    logits = network(images)
    assert logits.shape == (6, 10)
    torch.testing.assert_close(network(images.repeat(5, 1, 1, 1, 1)), logits)


def test_frames_have_their_own_time():
    network = build_network(NetworkConfig(layers=SMALL, timesteps=4), (2, 8, 8), classes=10)
    assert network(torch.rand(7, 3, 2, 8, 8)).shape == (3, 10)


def test_first_layer_runs_once_for_an_image():
    network = build_network(NetworkConfig(layers=SMALL, timesteps=4), (1, 8, 8))
    shapes = {}
    for name, module in network.named_children():
        module.register_forward_hook(lambda m, i, o, name=name: shapes.update({name: tuple(i[0].shape)}))
    network(digits(3, (1, 8, 8)))
    assert shapes["conv1"] == (3, 1, 8, 8) and shapes["bn1"] == (3, 4, 8, 8)
    assert shapes["spike1"] == (4, 3, 4, 8, 8) and shapes["conv2"] == (12, 4, 4, 4)


def test_logits_are_the_mean_of_the_last_layer_over_time():
    config = NetworkConfig(layers="20FC-10FC", timesteps=5, readout="rate")
    network = build_network(config, (1, 8, 8))
    emitted = []
    network.spike_fc2.register_forward_hook(lambda m, i, o: emitted.append(o))
    images = digits(4, (1, 8, 8))
    torch.testing.assert_close(network(images), emitted[0].mean(0))
    current = build_network(replace(config, readout="current"), (1, 8, 8))
    current.load_state_dict(network.state_dict())
    outputs = []
    current.fc2.register_forward_hook(lambda m, i, o: outputs.append(o))
    torch.testing.assert_close(current(images), outputs[0].unflatten(0, (5, 4)).mean(0))


@pytest.mark.parametrize("neuron", ["lif", "if", "plif"])
@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_layer_fires_at_the_start(name, neuron):
    shape = SHAPES.get(name, (1, 28, 28))
    width = 0.125 if name in SHAPES else 1.0
    network = build_network(NetworkConfig(layers=name, neuron=neuron, width=width), shape)
    rates = {}
    for child, module in network.named_children():
        if isinstance(module, SpikingNeuron):
            module.register_forward_hook(lambda m, i, o, child=child: rates.update({child: o.mean().item()}))
    with torch.no_grad():
        network(digits(16, shape))
    assert all(0.005 < rate < 0.8 for rate in rates.values()), rates


@pytest.mark.parametrize("neuron", ["lif", "if", "plif"])
def test_gradients_reach_every_parameter(neuron):
    network = build_network(NetworkConfig(layers=SMALL, neuron=neuron, readout="rate"), (1, 8, 8))
    network(digits(16, (1, 8, 8))).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_same_seed_same_weights():
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(build_network(NetworkConfig(), (1, 28, 28)).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["conv1.weight"], states[2]["conv1.weight"])


@pytest.mark.parametrize(
    "config",
    [
        NetworkConfig(layers=SMALL, neuron="plif", tau=3.0, threshold=0.5, readout="rate"),
        NetworkConfig(layers=SMALL, neuron="relu"),
        NetworkConfig(layers="resnet20", neuron="plif", width=0.25, zero_init=True),
    ],
    ids=["plif", "relu", "resnet20"],
)
def test_a_network_can_start_anew(config):
    """Whatever was learned, and whatever training left in normalisation: all is as in a new network."""
    fresh, network = (build_network(config, (1, 8, 8)) for _ in range(2))
    new = {name: value.clone() for name, value in fresh.state_dict().items()}
    network(digits(16, (1, 8, 8))).square().sum().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.rand_like(parameter))
    for each in (network, fresh):
        torch.manual_seed(3)
        initialise(each, config)
    state = network.state_dict()
    assert {
        name for name, value in fresh.state_dict().items() if not torch.equal(state[name], value)
    } == set()
    drawn = {name for name, value in new.items() if value.ndim > 1}
    assert {name for name, value in new.items() if not torch.equal(state[name], value)} == drawn


def test_threshold_only_sets_the_scale():
    """Weights grow with the threshold, so that the same neurons fire."""
    images = digits(8, (1, 8, 8))
    logits = []
    for threshold in (1.0, 4.0):
        torch.manual_seed(1)
        network = build_network(
            NetworkConfig(layers="4C3-BN-MaxPool2-6C3-20FC-10FC", threshold=threshold), (1, 8, 8)
        )
        logits.append(network(images))
    torch.testing.assert_close(*logits)


@given(
    st.lists(
        st.sampled_from(["4C3", "3C5P0", "2C1", "4C3-BN", "AvgPool2", "MaxPool3", "Dropout0.2"]), max_size=5
    ),
    st.tuples(st.integers(1, 3), st.integers(4, 24), st.integers(4, 24)),
    st.sampled_from(["lif", "if", "plif", "relu"]),
)
@settings(max_examples=50)
def test_any_notation_gives_logits_or_the_error_that_nothing_is_left(tokens, shape, neuron):
    config = NetworkConfig(layers="-".join([*tokens, "5FC-3FC"]), neuron=neuron, timesteps=2)
    try:
        network = build_network(config, shape, classes=3)
    except ValueError as problem:
        assert "nothing is left" in str(problem)
    else:
        assert network(torch.rand(2, *shape)).shape == (2, 3)


def test_presets_take_the_classes_of_the_data():
    assert build_network(NetworkConfig(layers="snn_2fc"), (2, 8, 8), classes=11).fc2.out_features == 11
    with pytest.raises(ValueError, match="11 classes but '20FC-10FC' ends with 10FC"):
        build_network(NetworkConfig(layers="20FC-10FC"), (2, 8, 8), classes=11)


def test_a_map_cannot_shrink_to_nothing():
    with pytest.raises(ValueError, match="nothing is left of a map of 2 x 2 after 50C5P0"):
        build_network(NetworkConfig(layers="ann_2conv2fc", neuron="relu"), (1, 8, 8))
    with pytest.raises(ValueError, match="input_shape must be"):
        build_network(NetworkConfig(), (0, 8, 8))


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 9, 8), (2, 4, 2, 1, 8, 8)])
def test_input_of_another_shape_is_refused(shape):
    network = build_network(NetworkConfig(layers=SMALL), (1, 8, 8))
    assert isinstance(network, SpikingNetwork)
    with pytest.raises(ValueError, match="expected images"):
        network(torch.rand(shape))


def test_fully_connected_layers_may_have_neurons_of_their_own():
    config = NetworkConfig(
        layers="8C3-BN-20FC-BN-10FC", neuron="plif", learn_surrogate=True, readout="rate",
        fc_neuron="lif", fc_threshold=0.5, fc_surrogate="triangle", fc_surrogate_parameter=0.5,
    )  # fmt: skip
    network = build_network(config, (1, 8, 8))
    assert isinstance(network.spike1, PLIF) and network.spike1.log_sharpness is not None
    for own in (network.spike_fc1, network.spike_fc2):
        assert isinstance(own, LIF) and own.threshold == 0.5
        assert own.surrogate == Triangle(0.5) and own.log_sharpness is None
    assert network.bn1.weight[0] == 1 and network.bn_fc1.weight[0] == 0.5
    like = build_network(replace(config, fc_threshold=1.0), (1, 8, 8))
    # weights are of the scale of the threshold that their currents must reach
    ratio = (network.fc1.weight.std() / like.fc1.weight.std()).item()
    assert ratio == pytest.approx(0.5, rel=0.05)
    plain = build_network(
        replace(config, fc_neuron=None, fc_surrogate=None, fc_surrogate_parameter=None), (1, 8, 8)
    )
    assert isinstance(plain.spike_fc1, PLIF) and plain.spike_fc1.log_sharpness is not None
    nn.init.ones_(network.spike1.log_sharpness)
    initialise(network, config)
    assert network.spike1.sharpness == 1
