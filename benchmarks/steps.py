"""A training step of the paper's two spiking networks: ours, SpikingJelly's multi-step and snnTorch's loop.

    python benchmarks/steps.py --network mnist --device cpu

A step is forward, backward and Adam on random images under direct encoding. The three networks have the same
weights, equations and surrogate gradient, which is checked first: hard reset with a detached reset, as snnTorch
has no other. SpikingJelly and snnTorch are used as their tutorials do: the image is repeated over time, and
snnTorch steps its layers in a Python loop. Ratios are throughput over SpikingJelly's in float32.
"""

import copy
import json
from collections.abc import Callable

import torch
from timing import (
    alternate,
    arguments_of,
    compared,
    in_a_process,
    peak_bytes,
    random_batch,
    ratio_table,
    report,
    set_up,
    training_step,
)
from torch import Tensor, nn

import dpap
from dpap.models import NetworkConfig, build_network
from dpap.models.networks import SpikingNetwork
from dpap.pruning.config import Decay
from dpap.spiking import SpikingNeuron

NETWORKS = {"mnist": ("snn_2conv2fc", (1, 28, 28), 64), "cifar": ("snn_6conv2fc", (3, 32, 32), 16)}
STEPS = 8
TAU = 2.0
BASELINE = "SpikingJelly"
CANDIDATES = [
    "snnTorch",
    "ours",
    "ours, channels last",
    "ours, channels last, compiled",
    "ours, channels last, bfloat16",
    "ours, channels last, bfloat16, compiled",
    "ours, channels last, 60% pruned",
]
Step = Callable[[], Tensor]


def ours(name: str, device: torch.device) -> SpikingNetwork:
    """The network of Table I."""
    torch.manual_seed(0)
    layers, shape, _ = NETWORKS[name]
    model = build_network(NetworkConfig(layers, timesteps=STEPS, tau=TAU, detach_reset=True), shape)
    assert isinstance(model, SpikingNetwork)
    return model.to(device)


class InSpikingJelly(nn.Module):
    """The same network of SpikingJelly's layers, in multi-step mode."""

    def __init__(self, network: SpikingNetwork) -> None:
        super().__init__()
        from spikingjelly.activation_based import functional, layer, neuron, surrogate

        self.reset_net = functional.reset_net
        layers = []
        for module in network:
            match module:
                case nn.Conv2d():
                    bias = module.bias is not None
                    sizes = (module.in_channels, module.out_channels, module.kernel_size)
                    layers.append(layer.Conv2d(*sizes, padding=module.padding, bias=bias))
                case nn.Linear():
                    layers.append(layer.Linear(module.in_features, module.out_features))
                case nn.BatchNorm2d():
                    layers.append(layer.BatchNorm2d(module.num_features))
                case nn.AvgPool2d():
                    layers.append(layer.AvgPool2d(module.kernel_size))
                case nn.MaxPool2d():
                    layers.append(layer.MaxPool2d(module.kernel_size))
                case nn.Flatten():
                    layers.append(layer.Flatten())
                case _:
                    arctan = surrogate.ATan(alpha=2.0)
                    layers.append(neuron.LIFNode(TAU, surrogate_function=arctan, detach_reset=True))
        self.layers = nn.Sequential(*layers)
        functional.set_step_mode(self, "m")
        for ours_, theirs in zip(network, layers, strict=True):
            if not isinstance(ours_, SpikingNeuron):
                theirs.load_state_dict(ours_.state_dict())

    def forward(self, image: Tensor) -> Tensor:
        """Mean logits over time."""
        self.reset_net(self)
        return self.layers(image.unsqueeze(0).repeat(STEPS, 1, 1, 1, 1)).mean(0)


class InSnnTorch(nn.Module):
    """The same network with snnTorch's Leaky. It adds its whole input, so weights before it are scaled by 1 / tau."""

    def __init__(self, network: SpikingNetwork) -> None:
        super().__init__()
        import snntorch
        from snntorch import surrogate

        slope = surrogate.atan(alpha=2.0)
        layers: list[nn.Module] = []
        weighted = network[0]
        for module in network:
            match module:
                case SpikingNeuron():
                    leak = 1 - 1 / TAU
                    layers.append(snntorch.Leaky(leak, spike_grad=slope, reset_mechanism="zero"))
                    for parameter in weighted.parameters():
                        parameter.data /= TAU
                case nn.AvgPool2d():
                    layers.append(nn.AvgPool2d(module.kernel_size))
                case _:
                    layers.append(copy.deepcopy(module))
                    if any(True for _ in module.parameters()):
                        weighted = layers[-1]
        self.layers = nn.ModuleList(layers)
        self.leaky = snntorch.Leaky

    def forward(self, image: Tensor) -> Tensor:
        """Mean logits over time."""
        membranes = {
            number: layer.init_leaky()
            for number, layer in enumerate(self.layers)
            if isinstance(layer, self.leaky)
        }
        logits = []
        for _ in range(STEPS):
            x = image
            for number, layer in enumerate(self.layers):
                if number in membranes:
                    x, membranes[number] = layer(x, membranes[number])
                else:
                    x = layer(x)
            logits.append(x)
        return torch.stack(logits).mean(0)


def pruned(network: SpikingNetwork, images: Tensor, labels: Tensor) -> SpikingNetwork:
    """The network after 60% of its weights died, by whole units, and were removed.

    Channels die as readily as in recipes/mnist_snn_2conv2fc_fast.yaml. It has not learned: which die is arbitrary.
    """
    network.train()
    optimizer = torch.optim.Adam(network.parameters())
    channels = Decay(epsilon=1.75, eta=12.0, beta=1.0, protection=5.0)
    config = dpap.PruningConfig.paper(target=0.6, start_epoch=0, end_epoch=1, synapses=False, conv=channels)
    pruner = dpap.Pruner(network, images[:8], optimizer, config)
    training_step(network, optimizer, images, labels)
    pruner.step()
    pruner.compact()
    pruner.detach()
    return network


def build(name: str, candidate: str, device: torch.device) -> Step:
    """A training step of one candidate of `CANDIDATES`."""
    options = candidate.split(", ")
    _, shape, batch = NETWORKS[name]
    images, labels = random_batch(batch, shape, device)
    network: nn.Module = ours(name, device)
    if candidate == BASELINE:
        network = InSpikingJelly(network)
    elif candidate == "snnTorch":
        network = InSnnTorch(network)
    elif "60% pruned" in options:
        network = pruned(network, images, labels)
    if "channels last" in options:
        network.to(memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, SpikingNeuron):
            module.compile_steps = "compiled" in options
    network.train()
    optimizer = torch.optim.Adam(network.parameters())
    return lambda: training_step(network, optimizer, images, labels, "bfloat16" in options)


def check(name: str, device: torch.device) -> None:
    """The candidates compute the same logits and gradients.

    Raises:
        AssertionError: they do not. (snnTorch normalises each timestep by itself and is checked without it.)
    """
    _, shape, batch = NETWORKS[name]
    images, _ = random_batch(min(batch, 8), shape, device)
    network = ours(name, device).train()
    normalised = any(isinstance(module, nn.BatchNorm2d) for module in network)
    others = [InSpikingJelly(network)] + ([] if normalised else [InSnnTorch(network)])
    expected = network(images)
    (gradient,) = torch.autograd.grad(expected.square().sum(), network.fc1.weight)
    for other in others:
        logits = other.to(device).train()(images)
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
        weight = max((each.weight for each in other.layers if hasattr(each, "in_features")), key=Tensor.numel)
        (theirs,) = torch.autograd.grad(logits.square().sum(), weight)
        scale = TAU if isinstance(other, InSnnTorch) else 1.0
        torch.testing.assert_close(
            theirs / scale, gradient, rtol=1e-2, atol=1e-3 * gradient.abs().max().item()
        )


def main() -> None:
    """Time the candidates, measure their memory, write both down."""
    parser = arguments_of(__doc__, rounds=20)
    parser.add_argument("--network", choices=tuple(NETWORKS), default="mnist")
    parser.add_argument(
        "--candidates", nargs="*", default=CANDIDATES, help="what is compared with " + BASELINE
    )
    parser.add_argument(
        "--memory", metavar="CANDIDATE", help="print the peak memory of one candidate in bytes"
    )
    arguments = parser.parse_args()
    name, device = arguments.network, set_up(arguments)
    check(name, device)
    if arguments.memory:
        print(json.dumps(peak_bytes(lambda: build(name, arguments.memory, device), device)))
        return
    names = [BASELINE, *arguments.candidates]
    rows = compared(
        alternate({each: build(name, each, device) for each in names}, arguments.rounds, device), BASELINE
    )
    for each in names:
        rows[each]["peak MiB"] = in_a_process(arguments, "--network", name, "--memory", each) / 2**20
    report(f"steps-{name}", arguments, {"candidates": rows}, [ratio_table(name, rows)])


if __name__ == "__main__":
    main()
