"""Residual networks: ResNet (He et al., CVPR 2016) and, of spiking neurons, SEW-ResNet (Fang et al., NeurIPS 2021).

Modules are named as in torchvision, `layer1.0.conv1` and so on, so that weights can be exchanged.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

SMALL = 64
"""Inputs of at most as many pixels a side keep their size in the stem, of one 3 x 3 convolution."""

Neuron = Callable[[], nn.Module]


@dataclass(frozen=True)
class Depth:
    """How many blocks each stage has, and of which kind.

    Attributes:
        blocks: of each stage.
        bottleneck: whether a block is 1 x 1, 3 x 3 and 1 x 1 with four times the channels, or 3 x 3 twice.
        channels: of each stage, inside its blocks.
    """

    blocks: tuple[int, ...]
    bottleneck: bool
    channels: tuple[int, ...] = (64, 128, 256, 512)


RESNETS: dict[str, Depth] = {
    "resnet18": Depth((2, 2, 2, 2), bottleneck=False),
    "resnet50": Depth((3, 4, 6, 3), bottleneck=True),
    "resnet8": Depth((1, 1, 1), bottleneck=False, channels=(16, 32, 64)),
    "resnet20": Depth((3, 3, 3), bottleneck=False, channels=(16, 32, 64)),
}
"""Table I's networks for ImageNet, and He et al.'s for CIFAR-10, with their option B as shortcuts; spiking neurons make
them SEW-ResNets."""


class ResidualBlock(nn.Module):
    """y = relu(branch(x) + shortcut(x)); the shortcut is a convolution of 1 x 1 where the shape changes.

    Args:
        inputs: channels of x.
        channels: inside the block.
        stride: of the (first) 3 x 3 convolution.
        bottleneck: which kind, see `Depth`.
        neuron: makes one layer of neurons.
    """

    neurons = "relu"

    def __init__(self, inputs: int, channels: int, stride: int, bottleneck: bool, neuron: Neuron) -> None:
        super().__init__()
        outputs = 4 * channels if bottleneck else channels
        branch = [(channels, 3, stride), (outputs, 3, 1)]
        if bottleneck:
            branch = [(channels, 1, 1), (channels, 3, stride), (outputs, 1, 1)]
        features = inputs
        for place, (units, kernel, step) in enumerate(branch, 1):
            self.add_module(f"conv{place}", _conv(features, units, kernel, step))
            self.add_module(f"bn{place}", nn.BatchNorm2d(units))
            self.add_module(f"{self.neurons}{place}", neuron())
            features = units
        self.depth = len(branch)
        self.downsample: nn.Sequential | None = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    @property
    def last_scale(self) -> nn.Parameter:
        """Weights of the branch's last norm; where they are 0 the block is an identity."""
        return self.get_parameter(f"bn{self.depth}.weight")

    def branch(self) -> list[tuple[nn.Module, ...]]:
        """Convolution, norm and neurons of the branch, in turn."""
        kinds = ("conv", "bn", self.neurons)
        return [
            tuple(self.get_submodule(f"{kind}{place}") for kind in kinds)
            for place in range(1, self.depth + 1)
        ]

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch c h w"]:
        """The block's activity."""
        shortcut = x if self.downsample is None else self.downsample(x)
        *first, (conv, norm, relu) = self.branch()
        for inner in first:
            for layer in inner:
                x = layer(x)
        activity: Tensor = relu(norm(conv(x)) + shortcut)
        return activity


class SEWBlock(ResidualBlock):
    """y = spikes of branch(x) + x, or + spikes of shortcut(x): the connect function ADD, so y counts spikes."""

    neurons = "spike"

    def __init__(self, inputs: int, channels: int, stride: int, bottleneck: bool, neuron: Neuron) -> None:
        super().__init__(inputs, channels, stride, bottleneck, neuron)
        self.downsample_spike = None if self.downsample is None else neuron()

    def forward(
        self, x: Float[Tensor, "time batch channel height width"]
    ) -> Float[Tensor, "time batch c h w"]:
        """The block's spike counts."""
        shortcut = x
        if self.downsample is not None and self.downsample_spike is not None:
            shortcut = self.downsample_spike(_folded(x, self.downsample))
        for conv, norm, spike in self.branch():
            x = spike(_folded(x, conv, norm))
        return x + shortcut


class SEWStage(nn.Sequential):
    """Blocks in turn over [T, B, ...]."""


def resnet_layers(
    depth: Depth,
    input_shape: tuple[int, int, int],
    classes: int,
    neuron: Neuron,
    *,
    spiking: bool,
    width: float = 1.0,
) -> Iterator[tuple[str, nn.Module]]:
    """The layers of a residual network, by name, in order; biases and weights are not yet initialised.

    Args:
        depth: blocks.
        input_shape: (channels, height, width); up to `SMALL` pixels a side, the stem is 3 x 3 with stride 1 and
            no pooling, else 7 x 7 with stride 2 and max pooling.
        classes: size of the output layer.
        neuron: makes one layer of neurons.
        spiking: whether these receive time.
        width: factor on the channels of every stage.
    """
    block, stage, name = (SEWBlock, SEWStage, "spike") if spiking else (ResidualBlock, nn.Sequential, "relu")
    channels = [max(1, round(number * width)) for number in depth.channels]
    small = max(input_shape[1:]) <= SMALL
    yield "conv1", _conv(input_shape[0], channels[0], *((3, 1) if small else (7, 2)))
    yield "bn1", nn.BatchNorm2d(channels[0])
    yield f"{name}1", neuron()
    if not small:
        yield "maxpool", nn.MaxPool2d(3, stride=2, padding=1)
    features = channels[0]
    for number, (units, blocks) in enumerate(zip(channels, depth.blocks, strict=True), 1):
        made = []
        for place in range(blocks):
            stride = 2 if number > 1 and place == 0 else 1
            made.append(block(features, units, stride, depth.bottleneck, neuron))
            features = 4 * units if depth.bottleneck else units
        yield f"layer{number}", stage(*made)
    yield "avgpool", nn.AdaptiveAvgPool2d(1)
    yield "flatten", nn.Flatten()
    yield "fc", nn.Linear(features, classes)


def _conv(features: int, units: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(features, units, kernel, stride=stride, padding=kernel // 2, bias=False)


def _folded(x: Tensor, *layers: nn.Module) -> Tensor:
    """The layers in turn, time folded into the batch."""
    folded = x.flatten(0, 1)
    for layer in layers:
        folded = layer(folded)
    return folded.unflatten(0, x.shape[:2])
