"""Networks of many kinds, each a function that returns a network and example inputs for it.

They are written out here, after the papers, so that no further package is needed; `from_torchvision` and
`from_timm` give those packages' own where they are installed, and the two frameworks' tutorials need theirs.
"""

import importlib
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpap.models import NetworkConfig, build_network

Example = tuple[nn.Module, tuple[Tensor, ...]]
Maker = Callable[[], Example]
IMAGENET = (3, 224, 224)


def preset(
    layers: str, shape: tuple[int, int, int], classes: int = 10, batch: int = 2, **chosen: object
) -> Example:
    """A network of `dpap.models`."""
    config = NetworkConfig(layers=layers, **chosen)  # type: ignore[arg-type]
    return build_network(config, shape, classes), (torch.rand(batch, *shape),)


def conv_norm(
    features: int, units: int, kernel: int = 3, activation: type[nn.Module] | None = nn.ReLU, **options: int
) -> nn.Sequential:
    """Convolution that keeps the map's size (or divides it by the stride), batch norm, activation."""
    conv = nn.Conv2d(features, units, kernel, padding=kernel // 2, bias=False, **options)  # type: ignore[arg-type]
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(units)]
    return nn.Sequential(*layers, *([] if activation is None else [activation()]))


def head(features: int, classes: int = 1000) -> nn.Sequential:
    """Mean over the map, then the output layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes))


class DenseLayer(nn.Module):
    """Appends `growth` channels to its input."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.new = nn.Sequential(
            nn.BatchNorm2d(features),
            nn.ReLU(),
            nn.Conv2d(features, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth),
            nn.ReLU(),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Input and new channels."""
        return torch.cat([x, self.new(x)], 1)


def densenet121(blocks: tuple[int, ...] = (6, 12, 24, 16), growth: int = 32) -> Example:
    """DenseNet-121 (Huang et al., CVPR 2017): concatenation, normalisation before the convolution."""
    features = 2 * growth
    layers: list[nn.Module] = [conv_norm(3, features, 7, stride=2), nn.MaxPool2d(3, stride=2, padding=1)]
    for number, depth in enumerate(blocks):
        if number:
            layers += [nn.BatchNorm2d(features), nn.ReLU(), nn.Conv2d(features, features // 2, 1, bias=False)]
            layers += [nn.AvgPool2d(2)]
            features //= 2
        for _ in range(depth):
            layers.append(DenseLayer(features, growth))
            features += growth
    network = nn.Sequential(*layers, nn.BatchNorm2d(features), nn.ReLU(), head(features))
    return network, (torch.rand(2, *IMAGENET),)


class SqueezeExcitation(nn.Module):
    """Gates every channel by a function of the means of all of them."""

    def __init__(self, features: int) -> None:
        super().__init__()
        inner = max(8, (features + 16) // 32 * 8)  # a quarter, in eights
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(features, inner, 1),
            nn.ReLU(),
            nn.Conv2d(inner, features, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Gated channels."""
        return x * self.gate(x)


class InvertedResidual(nn.Module):
    """Wider, depthwise, narrow again and linear; added to the input where the shapes are equal."""

    def __init__(
        self,
        features: int,
        units: int,
        inner: int,
        stride: int,
        kernel: int = 3,
        activation: type[nn.Module] = nn.ReLU6,
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.shortcut = stride == 1 and features == units
        self.branch = nn.Sequential(
            *([conv_norm(features, inner, 1, activation)] if inner != features else []),
            conv_norm(inner, inner, kernel, activation, stride=stride, groups=inner),
            *([SqueezeExcitation(inner)] if gated else []),
            conv_norm(inner, units, 1, None),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The stream after this block."""
        return x + self.branch(x) if self.shortcut else self.branch(x)


def mobilenet_v2() -> Example:
    """MobileNetV2 (Sandler et al., CVPR 2018): depthwise convolutions between linear bottlenecks."""
    layers: list[nn.Module] = [conv_norm(3, 32, activation=nn.ReLU6, stride=2)]
    features = 32
    for factor, units, depth, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for place in range(depth):
            layers.append(InvertedResidual(features, units, factor * features, 1 if place else stride))
            features = units
    return nn.Sequential(*layers, conv_norm(320, 1280, 1, nn.ReLU6), head(1280)), (torch.rand(2, *IMAGENET),)


def mobilenet_v3() -> Example:
    """MobileNetV3-Small (Howard et al., ICCV 2019): squeeze-and-excitation gates, hard swish."""
    layers: list[nn.Module] = [conv_norm(3, 16, activation=nn.Hardswish, stride=2)]
    features = 16
    for kernel, inner, units, gated, activation, stride in (
        (3, 16, 16, True, nn.ReLU, 2), (3, 72, 24, False, nn.ReLU, 2), (3, 88, 24, False, nn.ReLU, 1),
        (5, 96, 40, True, nn.Hardswish, 2), (5, 240, 40, True, nn.Hardswish, 1), (5, 240, 40, True, nn.Hardswish, 1),
        (5, 120, 48, True, nn.Hardswish, 1), (5, 144, 48, True, nn.Hardswish, 1), (5, 288, 96, True, nn.Hardswish, 2),
        (5, 576, 96, True, nn.Hardswish, 1), (5, 576, 96, True, nn.Hardswish, 1),
    ):  # fmt: skip
        layers.append(InvertedResidual(features, units, inner, stride, kernel, activation, gated))
        features = units
    layers += [conv_norm(96, 576, 1, nn.Hardswish), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    layers += [nn.Linear(576, 1024), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1024, 1000)]
    return nn.Sequential(*layers), (torch.rand(2, *IMAGENET),)


class Inception(nn.Module):
    """Four branches side by side, concatenated."""

    def __init__(
        self, features: int, one: int, three: tuple[int, int], five: tuple[int, int], pool: int
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                conv_norm(features, one, 1),
                nn.Sequential(conv_norm(features, three[0], 1), conv_norm(*three)),
                nn.Sequential(conv_norm(features, five[0], 1), conv_norm(*five, 5)),
                nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv_norm(features, pool, 1)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """All branches' channels."""
        return torch.cat([branch(x) for branch in self.branches], 1)


def inception() -> Example:
    """GoogLeNet (Szegedy et al., CVPR 2015) with batch norm and without auxiliary outputs."""
    pool = partial(nn.MaxPool2d, 3, stride=2, padding=1)
    network = nn.Sequential(
        conv_norm(3, 64, 7, stride=2), pool(), conv_norm(64, 64, 1), conv_norm(64, 192), pool(),
        Inception(192, 64, (96, 128), (16, 32), 32), Inception(256, 128, (128, 192), (32, 96), 64), pool(),
        Inception(480, 192, (96, 208), (16, 48), 64), Inception(512, 160, (112, 224), (24, 64), 64),
        Inception(512, 128, (128, 256), (24, 64), 64), Inception(512, 112, (144, 288), (32, 64), 64),
        Inception(528, 256, (160, 320), (32, 128), 128), pool(),
        Inception(832, 256, (160, 320), (32, 128), 128), Inception(832, 384, (192, 384), (48, 128), 128),
        head(1024),
    )  # fmt: skip
    return network, (torch.rand(2, *IMAGENET),)


class UNet(nn.Module):
    """Down, and up again by transposed convolutions, each level's map concatenated on the way up."""

    def __init__(self, widths: tuple[int, ...] = (64, 128, 256, 512, 1024), classes: int = 2) -> None:
        super().__init__()
        sizes = list(pairwise(widths))
        self.stem = self.twice(3, widths[0])
        self.down = nn.ModuleList(self.twice(features, units) for features, units in sizes)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(units, features, 2, stride=2) for features, units in sizes[::-1]
        )
        self.join = nn.ModuleList(self.twice(2 * features, features) for features, _ in sizes[::-1])
        self.out = nn.Conv2d(widths[0], classes, 1)

    @staticmethod
    def twice(features: int, units: int) -> nn.Sequential:
        """Two convolutions."""
        return nn.Sequential(conv_norm(features, units), conv_norm(units, units))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every pixel."""
        maps = [self.stem(x)]
        for down in self.down:
            maps.append(down(F.max_pool2d(maps[-1], 2)))
        x = maps.pop()
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([maps.pop(), up(x)], 1))
        return self.out(x)


def unet() -> Example:
    """U-Net (Ronneberger et al., MICCAI 2015), padded."""
    return UNet(), (torch.rand(1, *IMAGENET),)


class PaddedBlock(nn.Module):
    """Two convolutions and a shortcut that is subsampled and padded with channels of zeros, without weights."""

    def __init__(self, features: int, units: int, stride: int) -> None:
        super().__init__()
        self.stride, self.missing = stride, units - features
        self.branch = nn.Sequential(
            conv_norm(features, units, stride=stride), conv_norm(units, units, activation=None)
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """The stream after this block."""
        before = self.missing // 2
        shortcut = x[:, :, :: self.stride, :: self.stride]
        shortcut = F.pad(shortcut, (0, 0, 0, 0, before, self.missing - before))
        return self.relu(shortcut + self.branch(x))


def resnet20() -> Example:
    """ResNet-20 for CIFAR-10 (He et al., CVPR 2016), shortcuts of option A."""
    layers: list[nn.Module] = [conv_norm(3, 16)]
    features = 16
    for units in (16, 32, 64):
        for _ in range(3):
            layers.append(PaddedBlock(features, units, 1 if units == features else 2))
            features = units
    return nn.Sequential(*layers, head(64, 10)), (torch.rand(2, 3, 32, 32),)


def firing(network: nn.Module, times: float = 4.0) -> nn.Module:
    """Larger weights than initial ones, so that spikes get through, as they do in a trained network."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.mul_(times)
    return network


def spikingjelly_csnn(timesteps: int = 4, channels: int = 128) -> Example:
    """The network of SpikingJelly's Fashion-MNIST tutorial, all timesteps at once."""
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    def spike() -> nn.Module:
        return neuron.IFNode(surrogate_function=surrogate.ATan())

    class CSNN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv_fc = nn.Sequential(
                layer.Conv2d(1, channels, kernel_size=3, padding=1, bias=False),
                layer.BatchNorm2d(channels),
                spike(),
                layer.MaxPool2d(2, 2),
                layer.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
                layer.BatchNorm2d(channels),
                spike(),
                layer.MaxPool2d(2, 2),
                layer.Flatten(),
                layer.Linear(channels * 7 * 7, channels * 4 * 4, bias=False),
                spike(),
                layer.Linear(channels * 4 * 4, 10, bias=False),
                spike(),
            )
            functional.set_step_mode(self, step_mode="m")

        def forward(self, x: Tensor) -> Tensor:
            return self.conv_fc(x.unsqueeze(0).expand(timesteps, -1, -1, -1, -1)).mean(0)

    return firing(CSNN()), (torch.rand(4, 1, 28, 28),)


def snntorch_conv(timesteps: int = 50, beta: float = 0.5) -> Example:
    """The convolutional network of snnTorch's tutorial 6, stepping through time in Python."""
    import snntorch
    from snntorch import surrogate

    leaky = partial(snntorch.Leaky, beta=beta, spike_grad=surrogate.fast_sigmoid(slope=25))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.lif1 = nn.Conv2d(1, 12, 5), leaky()
            self.conv2, self.lif2 = nn.Conv2d(12, 64, 5), leaky()
            self.fc1, self.lif3 = nn.Linear(64 * 4 * 4, 10), leaky()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            mem1, mem2, mem3 = self.lif1.init_leaky(), self.lif2.init_leaky(), self.lif3.init_leaky()
            spikes, membranes = [], []
            for _ in range(timesteps):
                spk1, mem1 = self.lif1(F.max_pool2d(self.conv1(x), 2), mem1)
                spk2, mem2 = self.lif2(F.max_pool2d(self.conv2(spk1), 2), mem2)
                spk3, mem3 = self.lif3(self.fc1(spk2.flatten(1)), mem3)
                spikes.append(spk3)
                membranes.append(mem3)
            return torch.stack(spikes), torch.stack(membranes)

    return firing(Net()), (torch.rand(4, 1, 28, 28),)


class EncoderBlock(nn.Module):
    """Attention and a perceptron, each behind a layer norm and added to the stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """The stream after this block."""
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Patches as tokens; the mean of the tokens is classified."""

    def __init__(self, side: int, patch: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.position = nn.Parameter(0.02 * torch.randn(1, (side // patch) ** 2, width))
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(depth)))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.out(self.norm(self.blocks(tokens)).mean(1))


def vit() -> Example:
    """ViT-S/16 (Dosovitskiy et al., ICLR 2021; Touvron et al., ICML 2021), torch's own attention."""
    return VisionTransformer(224, 16, width=384, depth=12, heads=6), (torch.rand(2, *IMAGENET),)


NETWORKS: dict[str, Maker] = {
    "LeNet-5": partial(preset, "ann_2conv2fc", (1, 28, 28), neuron="relu", batch=4),
    "VGG16": partial(preset, "vgg16", (3, 32, 32), neuron="relu"),
    "SNN 6Conv2FC": partial(preset, "snn_6conv2fc", (3, 32, 32)),
    "ResNet-18": partial(preset, "resnet18", IMAGENET, 1000, neuron="relu"),
    "ResNet-50": partial(preset, "resnet50", IMAGENET, 1000, neuron="relu"),
    "ResNet-20, padded shortcuts": resnet20,
    "DenseNet-121": densenet121,
    "MobileNetV2": mobilenet_v2,
    "MobileNetV3-Small": mobilenet_v3,
    "GoogLeNet": inception,
    "U-Net": unet,
    "ViT-S/16": vit,
    "SEW-ResNet-18": partial(preset, "resnet18", IMAGENET, 1000, neuron="if", timesteps=4, batch=1),
    "SpikingJelly CSNN": spikingjelly_csnn,
    "snnTorch tutorial 6": snntorch_conv,
}
"""By name, in the order of the table."""

TORCHVISION = (
    "resnet18", "resnet50", "densenet121", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0",
    "shufflenet_v2_x1_0", "googlenet", "inception_v3", "mnasnet1_0", "regnet_y_400mf", "squeezenet1_1", "vgg16_bn",
    "convnext_tiny", "vit_b_16", "swin_t",
)  # fmt: skip
TIMM = (
    "resnet18", "efficientnet_b0", "mobilenetv3_small_100", "vit_small_patch16_224", "convnext_atto", "mixer_s32_224",
    "ghostnet_100", "repvgg_a0",
)  # fmt: skip


def from_torchvision(names: Iterable[str] = TORCHVISION) -> dict[str, Maker]:
    """Networks of torchvision itself, untrained.

    Raises:
        ImportError: it is not installed or does not load.
    """
    models = load_torchvision().models

    def make(name: str) -> Example:
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        side = 299 if name == "inception_v3" else 224
        return getattr(models, name)(**options), (torch.rand(2, 3, side, side),)

    return {f"torchvision {name}": partial(make, name) for name in names}


def from_timm(names: Iterable[str] = TIMM) -> dict[str, Maker]:
    """Networks of timm itself, untrained.

    Raises:
        ImportError: it is not installed or does not load.
    """
    load_torchvision()
    timm = importlib.import_module("timm")

    def make(name: str) -> Example:
        return timm.create_model(name), (torch.rand(2, *IMAGENET),)

    return {f"timm {name}": partial(make, name) for name in names}


_DECLARED: list[torch.library.Library] = []


def load_torchvision() -> ModuleType:
    """The package, also where it was built for another torch: its networks need none of its compiled operators."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:  # "operator torchvision::nms does not exist"
        if "torchvision::" not in str(error):
            raise ImportError(f"torchvision does not load: {error}") from error
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _DECLARED.append(library)  # what it declares is forgotten with it
    try:
        return importlib.import_module("torchvision")
    except Exception as error:
        raise ImportError(f"torchvision does not load: {error}") from error
