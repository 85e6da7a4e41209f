"""The notation of the paper's Table I, `15C3-AvgPool2-40C3-AvgPool2-300FC-10FC`.

Tokens, joined by "-":
    nCk        n channels of k x k filters, stride 1, padded to keep the map's size (k odd); nCkPp: padded by p
    nFC        n fully connected neurons; the last token, and it alone, is the output layer
    BN         batch normalisation of the nC or nFC just before it
    AvgPoolk, MaxPoolk    pooling of k x k with stride k
    Dropoutp   dropout with probability p, as in Dropout0.5
Neurons are not written: they follow each nC and nFC (and its BN), except the output layer.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from dpap.models.resnet import RESNETS
from dpap.spelling import suggestion

PRESETS: dict[str, str] = {
    "snn_2fc": "800FC-10FC",
    "snn_2conv2fc": "15C3-AvgPool2-40C3-AvgPool2-300FC-10FC",
    "snn_6conv2fc": ("128C3-BN-128C3-BN-MaxPool2-256C3-BN-256C3-BN-MaxPool2-512C3-BN-512C3-BN-512FC-10FC"),
    "ann_2conv2fc": "20C5P0-MaxPool2-50C5P0-MaxPool2-500FC-10FC",
    "vgg16": (
        "64C3-BN-64C3-BN-MaxPool2-128C3-BN-128C3-BN-MaxPool2-256C3-BN-256C3-BN-256C3-BN-MaxPool2-"
        "512C3-BN-512C3-BN-512C3-BN-MaxPool2-512C3-BN-512C3-BN-512C3-BN-MaxPool2-512FC-512FC-10FC"
    ),
}
"""Table I. What it leaves open: the 2FC network is that of Deep R and Grad R, with which the paper compares;
the 5 x 5 filters are unpadded as in LeNet (430,500 weights); VGG16 has the usual fully connected part for
CIFAR-10, 512-512. The output layer of a preset takes as many neurons as there are classes."""


@dataclass(frozen=True)
class Conv:
    """nCk or nCkPp."""

    channels: int
    kernel: int
    padding: int

    def __str__(self) -> str:
        padded = "" if 2 * self.padding == self.kernel - 1 else f"P{self.padding}"
        return f"{self.channels}C{self.kernel}{padded}"


@dataclass(frozen=True)
class FullyConnected:
    """nFC."""

    units: int

    def __str__(self) -> str:
        return f"{self.units}FC"


@dataclass(frozen=True)
class BatchNorm:
    """BN."""

    def __str__(self) -> str:
        return "BN"


@dataclass(frozen=True)
class Pool:
    """AvgPoolk or MaxPoolk."""

    kind: Literal["Avg", "Max"]
    size: int

    def __str__(self) -> str:
        return f"{self.kind}Pool{self.size}"


@dataclass(frozen=True)
class Dropout:
    """Dropoutp."""

    probability: float

    def __str__(self) -> str:
        return f"Dropout{self.probability:g}"


Layer = Conv | FullyConnected | BatchNorm | Pool | Dropout


def parse(layers: str) -> tuple[Layer, ...]:
    """The layers of a notation or of the preset of that name.

    Raises:
        ValueError: a token is unknown or out of place; the message names it and its position.
    """
    tokens = PRESETS.get(layers, layers).split("-")
    parsed: list[Layer] = []
    for position, token in enumerate(tokens, 1):
        where = f"token {position} of {'-'.join(tokens)!r}, {token!r},"
        layer = _token(token, where)
        _check_order(layer, parsed, where)
        parsed.append(layer)
    if not isinstance(parsed[-1], FullyConnected):
        raise ValueError(f"{where} ends the network; expected the output layer, nFC with n classes")
    return tuple(parsed)


def scaled(layers: tuple[Layer, ...], width: float) -> tuple[Layer, ...]:
    """The layers with `width` times as many channels and neurons, at least 1; the output layer stays."""

    def scale(number: int) -> int:
        return max(1, round(number * width))

    hidden: list[Layer] = []
    for layer in layers[:-1]:
        if isinstance(layer, Conv):
            layer = replace(layer, channels=scale(layer.channels))
        elif isinstance(layer, FullyConnected):
            layer = FullyConnected(scale(layer.units))
        hidden.append(layer)
    return (*hidden, layers[-1])


def _conv(channels: str, kernel: str, padding: str | None) -> Conv:
    if padding is None and int(kernel) % 2 == 0:
        raise ValueError(
            f"an even kernel cannot keep the map's size; write its padding, {channels}C{kernel}P0"
        )
    return Conv(int(channels), int(kernel), int(kernel) // 2 if padding is None else int(padding))


_TOKENS: tuple[tuple[str, Callable[..., Layer]], ...] = (
    (r"([1-9]\d*)C([1-9]\d*)(?:P(\d+))?", _conv),
    (r"([1-9]\d*)FC", lambda units: FullyConnected(int(units))),
    (r"BN", BatchNorm),
    (r"(Avg|Max)Pool([1-9]\d*)", lambda kind, size: Pool(kind, int(size))),
    (r"Dropout(0?\.\d+|0)", lambda probability: Dropout(float(probability))),
)


def _token(token: str, where: str) -> Layer:
    for pattern, build in _TOKENS:
        if found := re.fullmatch(pattern, token):
            try:
                return build(*found.groups())
            except ValueError as problem:
                raise ValueError(f"{where} is incomplete: {problem}") from None
    raise ValueError(
        f"{where} is unknown; expected nCk, nCkPp, nFC, BN, AvgPoolk, MaxPoolk or Dropoutp with numbers "
        f"n, k >= 1 and 0 <= p < 1 (as in 15C3-AvgPool2-Dropout0.5-10FC), or alone one of the presets "
        f"{', '.join((*PRESETS, *RESNETS))}{suggestion(token, (*PRESETS, *RESNETS))}"
    )


def _check_order(layer: Layer, before: list[Layer], where: str) -> None:
    flat = any(isinstance(earlier, FullyConnected) for earlier in before)
    if isinstance(layer, Conv | Pool) and flat:
        raise ValueError(f"{where} needs a map, but follows a fully connected layer; move it forward")
    if isinstance(layer, BatchNorm) and not (before and isinstance(before[-1], Conv | FullyConnected)):
        raise ValueError(f"{where} normalises nothing; it must follow an nCk or nFC directly")
