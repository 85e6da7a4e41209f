"""Networks from their notation."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from math import prod, sqrt

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpap.models.config import NetworkConfig
from dpap.models.notation import (
    PRESETS,
    BatchNorm,
    Conv,
    Dropout,
    FullyConnected,
    Layer,
    Pool,
    parse,
    scaled,
)
from dpap.models.pooling import AvgPool
from dpap.models.resnet import RESNETS, ResidualBlock, SEWStage, resnet_layers
from dpap.spiking import IF, LIF, PLIF, SURROGATES, SpikingNeuron, over_time

_GAINS = {"relu": sqrt(2), "lif": 4.0, "plif": 4.0, "if": 2.0}


class SpikingNetwork(nn.Sequential):
    """Layers in turn over [T, B, ...], of which only neurons and stages receive time; the others receive [T * B, ...].

    Args:
        layers: (name, module) in order.
        input_shape: (channels, height, width).
        timesteps: how long an image is shown.
    """

    in_turn = True
    """That children are called in turn, although by a forward of its own."""

    def __init__(
        self, layers: list[tuple[str, nn.Module]], input_shape: tuple[int, int, int], timesteps: int
    ) -> None:
        super().__init__()
        for name, module in layers:
            self.add_module(name, module)
        self.input_shape = input_shape
        self.timesteps = timesteps

    def forward(
        self, input: Float[Tensor, "*time batch channel height width"]
    ) -> Float[Tensor, "batch class"]:
        """Logits: the mean over time of what the last layer emits.

        An image [B, C, H, W] is a constant current over `timesteps`: what comes before the first neurons is
        computed once, and expanded over time without a copy. Frames [T, B, C, H, W] have their own T.
        """
        if input.ndim not in (4, 5) or tuple(input.shape[-3:]) != self.input_shape:
            raise ValueError(
                f"expected images [batch, {_sizes(self.input_shape)}] or frames "
                f"[time, batch, {_sizes(self.input_shape)}]; got shape {tuple(input.shape)}; build the network "
                "with the data's input_shape"
            )
        constant = input.ndim == 4
        batch = input.shape[-4]
        steps = self.timesteps if constant else len(input)
        x = input if constant else input.flatten(0, 1)
        for layer in self:
            if isinstance(layer, SpikingNeuron | SEWStage):
                # no other name refers to the current, so that it is freed before the next layer runs
                x = over_time(x, steps) if constant else x.unflatten(0, (steps, batch))
                x = layer(x).flatten(0, 1)
                constant = False
            else:
                x = layer(x)
        return x if constant else x.unflatten(0, (steps, batch)).mean(0)


def build_network(config: NetworkConfig, input_shape: tuple[int, int, int], classes: int = 10) -> nn.Module:
    """A network with the weights of torch's current seed.

    Children are named in order: conv1, bn1, spike1 (or relu1), pool1, ..., flatten, fc1, spike_fc1, fc2; those
    of residual networks as in torchvision.
    Rectifier networks take [B, C, H, W], spiking ones also [T, B, C, H, W]; both return logits [B, classes].

    Args:
        input_shape: (channels, height, width) of the data.
        classes: size of the output layer; must be that of a notation that is written out.

    Raises:
        ValueError: a map shrinks to nothing, or the output layer does not fit the classes.

    Example:
        >>> import torch
        >>> from dpap.models import NetworkConfig, build_network
        >>> network = build_network(NetworkConfig("4C3-AvgPool2-10FC", timesteps=4), (1, 8, 8))
        >>> [name for name, _ in network.named_children()]
        ['conv1', 'spike1', 'pool1', 'flatten', 'fc1']
        >>> network(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise ValueError(f"input_shape must be (channels, height, width), each at least 1; got {input_shape}")
    if config.layers in RESNETS:
        modules = list(_residual(config, input_shape, classes))
    else:
        layers = scaled(parse(config.layers), config.width)
        if config.layers in PRESETS:
            layers = (*layers[:-1], FullyConnected(classes))
        elif layers[-1] != FullyConnected(classes):
            raise ValueError(f"the data has {classes} classes but {config.layers!r} ends with {layers[-1]}")
        modules = list(_modules(layers, config, input_shape))
    network: nn.Sequential
    if config.spiking:
        network = SpikingNetwork(modules, input_shape, config.timesteps)
    else:
        network = nn.Sequential(OrderedDict(modules))
    initialise(network, config)
    return network


def _residual(
    config: NetworkConfig, shape: tuple[int, int, int], classes: int
) -> Iterator[tuple[str, nn.Module]]:
    yield from resnet_layers(
        RESNETS[config.layers],
        shape,
        classes,
        lambda: _neuron(config, "")[1],
        spiking=config.spiking,
        width=config.width,
    )
    if config.spiking and config.readout == "rate":
        yield _neuron(config.of_fully_connected, "_fc")


def _modules(
    layers: tuple[Layer, ...], config: NetworkConfig, shape: tuple[int, ...]
) -> Iterator[tuple[str, nn.Module]]:
    convs = fcs = pools = dropouts = 0
    for layer, following in pairwise((*layers, None)):
        normalised = isinstance(following, BatchNorm)
        match layer:
            case Conv(channels, kernel, padding):
                convs += 1
                yield (
                    f"conv{convs}",
                    nn.Conv2d(shape[0], channels, kernel, padding=padding, bias=not normalised),
                )
                shape = (channels, *_shrunk(shape, lambda size: size + 2 * padding - kernel + 1, layer))
                if normalised:
                    yield f"bn{convs}", nn.BatchNorm2d(channels)
                yield _neuron(config, str(convs))
            case FullyConnected(units):
                if fcs == 0:
                    yield "flatten", nn.Flatten()
                fcs += 1
                yield f"fc{fcs}", nn.Linear(prod(shape), units, bias=not normalised)
                shape = (units,)
                if normalised:
                    yield f"bn_fc{fcs}", nn.BatchNorm1d(units)
                if following is not None or (config.spiking and config.readout == "rate"):
                    yield _neuron(config.of_fully_connected, f"_fc{fcs}")
            case Pool(kind, size):
                pools += 1
                shape = (shape[0], *_shrunk(shape, lambda side: side // size, layer))
                yield f"pool{pools}", AvgPool(size) if kind == "Avg" else nn.MaxPool2d(size)
            case Dropout(probability):
                dropouts += 1
                yield f"dropout{dropouts}", nn.Dropout(probability)


def _shrunk(shape: tuple[int, ...], smaller: Callable[[int], int], layer: Layer) -> tuple[int, int]:
    height, width = smaller(shape[1]), smaller(shape[2])
    if min(height, width) < 1:
        raise ValueError(
            f"nothing is left of a map of {shape[1]} x {shape[2]} after {layer}; use larger inputs or pool less"
        )
    return height, width


def _neuron(config: NetworkConfig, suffix: str) -> tuple[str, nn.Module]:
    if not config.spiking:
        return f"relu{suffix}", nn.ReLU()
    parameter = () if config.surrogate_parameter is None else (config.surrogate_parameter,)
    kind: Callable[..., SpikingNeuron]
    match config.neuron:
        case "if":
            kind = IF
        case "plif":
            kind = partial(PLIF, config.tau)
        case _:
            kind = partial(LIF, config.tau)
    return f"spike{suffix}", kind(
        threshold=config.threshold,
        reset=config.reset,
        detach_reset=config.detach_reset,
        surrogate=SURROGATES[config.surrogate](*parameter),
        learn_surrogate=config.learn_surrogate,
    )


@torch.no_grad()
def initialise(network: nn.Module, config: NetworkConfig) -> None:
    """New weights, of variance gain^2 / inputs, and biases 0; the output layer has gain 1.

    A leaky neuron fires on currents above its threshold only, and its input, spikes, is mostly 0: with the
    gain for rectifiers deeper layers would not fire at all.
    """
    modules = list(network.modules())
    weighted = [module for module in modules if isinstance(module, nn.Conv2d | nn.Linear)]

    def scale(module: nn.Module) -> tuple[float, float]:
        """Gain and threshold of the neurons after a layer."""
        flat = isinstance(module, nn.Linear | nn.BatchNorm1d)
        neuron = config.of_fully_connected if flat else config
        return _GAINS[neuron.neuron], neuron.threshold if neuron.spiking else 1.0

    for module in weighted:
        spread = 1.0 if module is weighted[-1] else prod(scale(module))
        nn.init.normal_(module.weight, std=spread / sqrt(module.weight[0].numel()))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    for norm in modules:
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.reset_parameters()
            nn.init.constant_(norm.weight, scale(norm)[1])
    for neuron in modules:
        if isinstance(neuron, PLIF):
            neuron.w.copy_(PLIF(config.tau).w)
        if isinstance(neuron, SpikingNeuron) and neuron.log_sharpness is not None:
            nn.init.zeros_(neuron.log_sharpness)
    for block in modules:
        if config.zero_init and isinstance(block, ResidualBlock):
            nn.init.zeros_(block.last_scale)


def _sizes(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
