"""Random networks of blocks of every kind that people build, each an ordinary module with an ordinary forward.

A block takes and returns maps [B, C, H, W]; `networks(kind)` draws a network that holds a block of that kind.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from dpap.anatomy.pytrees import Inputs
from dpap.spiking import IF, LIF, PLIF, FoldTime

Made = tuple[nn.Module, int]
"""A block, and how many channels it returns."""


class Act(nn.Module):
    """A map through a function, functional or a module, whichever is drawn."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        self.module = draw.choice(
            [None, nn.ReLU(), nn.LeakyReLU(0.2), nn.GELU(), nn.PReLU(), nn.ReLU(inplace=True)]
        )
        functions = [F.relu, torch.relu, F.gelu, torch.tanh, lambda x: x.clamp(min=0), lambda x: x.relu()]
        self.function = draw.choice(functions)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x) if self.module is None else self.module(x)


def conv_norm(draw: random.Random, inputs: int, units: int, kernel: int = 3, **options: int) -> nn.Sequential:
    """A convolution, perhaps normalised."""
    norm = draw.choice([True, True, False])
    layers: list[nn.Module] = [
        nn.Conv2d(
            inputs, units, kernel, padding=kernel // 2, bias=not norm or draw.choice([True, False]), **options
        )
    ]
    return nn.Sequential(*layers, *([nn.BatchNorm2d(units)] if norm else []))


class Residual(nn.Module):
    """A basic block with an identity shortcut, a projected one, or one padded with channels of zeros."""

    def __init__(self, draw: random.Random, inputs: int, shortcut: str) -> None:
        super().__init__()
        units = inputs if shortcut == "identity" else inputs + draw.randint(1, 3)
        self.stride = 1 if shortcut == "identity" else 2
        inner = draw.randint(2, 6)
        self.inner = conv_norm(draw, inputs, inner, stride=self.stride)
        self.outer = conv_norm(draw, inner, units)
        self.shortcut = nn.Conv2d(inputs, units, 1, stride=2) if shortcut == "projected" else None
        self.missing = units - inputs
        self.act1, self.act2 = Act(draw), Act(draw)
        self.units = units

    def forward(self, x: Tensor) -> Tensor:
        before = x
        if self.shortcut is not None:
            before = self.shortcut(x)
        elif self.missing:
            before = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.missing))
        return self.act2(self.outer(self.act1(self.inner(x))) + before)


class Dense(nn.Module):
    """Layers that read all before them."""

    def __init__(self, draw: random.Random, inputs: int) -> None:
        super().__init__()
        grown = [draw.randint(2, 4) for _ in range(2)]
        self.norms = nn.ModuleList(nn.BatchNorm2d(inputs + sum(grown[:i])) for i in range(2))
        self.convs = nn.ModuleList(
            nn.Conv2d(inputs + sum(grown[:i]), grown[i], 3, padding=1, bias=False) for i in range(2)
        )
        self.units = inputs + sum(grown)

    def forward(self, x: Tensor) -> Tensor:
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, conv(F.relu(norm(x)))], 1)
        return x


class Inception(nn.Module):
    """Branches side by side."""

    def __init__(self, draw: random.Random, inputs: int) -> None:
        super().__init__()
        sizes = [draw.randint(2, 4) for _ in range(3)]
        self.branches = nn.ModuleList(
            conv_norm(draw, inputs, n, k) for n, k in zip(sizes, (1, 3, 5), strict=True)
        )
        self.act = Act(draw)
        self.units = sum(sizes)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(torch.cat([branch(x) for branch in self.branches], 1))


class UNet(nn.Module):
    """Down, up by a transposed convolution, and the skipped map beside it."""

    def __init__(self, draw: random.Random, inputs: int) -> None:
        super().__init__()
        low, high = draw.randint(2, 5), draw.randint(2, 5)
        self.down = nn.Conv2d(inputs, low, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(low, high, 2, stride=2)
        self.norm = nn.BatchNorm2d(high)
        self.act = Act(draw)
        self.units = inputs + high

    def forward(self, x: Tensor) -> Tensor:
        up = F.relu(self.norm(self.up(self.act(self.down(x)))))
        return torch.cat([x[..., : up.shape[-2], : up.shape[-1]], up[..., : x.shape[-2], : x.shape[-1]]], 1)


class Grouped(nn.Module):
    """A convolution in groups between two others."""

    def __init__(self, draw: random.Random, inputs: int) -> None:
        super().__init__()
        groups = draw.randint(2, 3)
        width, self.units = groups * draw.randint(1, 3), groups * draw.randint(2, 3)
        self.reduce = conv_norm(draw, inputs, width, 1)
        self.grouped = conv_norm(draw, width, self.units, groups=groups)
        self.act1, self.act2 = Act(draw), Act(draw)

    def forward(self, x: Tensor) -> Tensor:
        return self.act2(self.grouped(self.act1(self.reduce(x))))


class Depthwise(nn.Module):
    """An inverted residual's middle: expand, each channel by itself, project."""

    def __init__(self, draw: random.Random, inputs: int) -> None:
        super().__init__()
        width, multiplier = draw.randint(2, 6), draw.choice([1, 1, 2])
        self.units = draw.randint(2, 5)
        self.expand = conv_norm(draw, inputs, width, 1)
        self.depthwise = conv_norm(draw, width, multiplier * width, groups=width)
        self.project = conv_norm(draw, multiplier * width, self.units, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(F.relu6(self.depthwise(F.relu6(self.expand(x)))))


class SqueezeExcitation(nn.Module):
    """Channels scaled by what the map holds on average."""

    def __init__(self, draw: random.Random, inputs: int) -> None:
        super().__init__()
        self.units = draw.randint(3, 6)
        self.conv = conv_norm(draw, inputs, self.units)
        self.squeeze, self.excite = nn.Conv2d(self.units, 2, 1), nn.Conv2d(2, self.units, 1)
        self.gate = draw.choice([torch.sigmoid, F.hardsigmoid, nn.Sigmoid()])
        self.act = Act(draw)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(x))
        return x * self.gate(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))


class Shared(nn.Module):
    """One activation, one convolution and one norm, each called twice."""

    def __init__(self, draw: random.Random, inputs: int) -> None:
        super().__init__()
        self.units = draw.randint(2, 5)
        self.first = nn.Conv2d(inputs, self.units, 1)
        self.twice, self.norm, self.act = nn.Conv2d(self.units, self.units, 3, padding=1), None, nn.ReLU()
        if draw.choice([True, False]):
            self.norm = nn.BatchNorm2d(self.units)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        for _ in range(2):
            x = self.twice(x)
            x = self.act(x if self.norm is None else self.norm(x))
        return x


class OtherDimensions(nn.Module):
    """Convolutions over one and three dimensions, transposed ones too."""

    def __init__(self, draw: random.Random, inputs: int) -> None:
        super().__init__()
        one, three, self.units = draw.randint(2, 5), draw.randint(2, 4), draw.randint(2, 4)
        self.line = nn.Conv1d(inputs, one, 3, padding=1)
        self.up = nn.ConvTranspose1d(one, one + 1, 3, padding=1)
        self.space = nn.Conv3d(one + 1, three, (1, 3, 3), padding=(0, 1, 1))
        self.back = nn.ConvTranspose3d(three, self.units, 1)
        self.norm = nn.BatchNorm1d(one)

    def forward(self, x: Tensor) -> Tensor:
        line = F.relu(self.up(F.relu(self.norm(self.line(x.flatten(2))))))
        return F.relu(self.back(F.relu(self.space(line.view(*line.shape[:2], 1, *x.shape[2:]))))).squeeze(2)


class Split(nn.Module):
    """Gated linear units, shuffled channels or pixels: positions that code fixes."""

    def __init__(self, draw: random.Random, inputs: int) -> None:
        super().__init__()
        self.kind = draw.choice(["glu", "shuffle", "pixels", "halves"])
        half = draw.randint(2, 3)
        self.conv = nn.Conv2d(inputs, 4 * half, 3, padding=1)
        self.units = {"glu": 2 * half, "shuffle": 4 * half, "pixels": half, "halves": 2 * half}[self.kind]

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.kind == "glu":
            return F.glu(x, 1)
        if self.kind == "shuffle":
            return F.relu(x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2))
        if self.kind == "pixels":
            return F.max_pool2d(F.relu(F.pixel_shuffle(x, 2)), 2)
        one, other = x.chunk(2, 1)
        return F.relu(one) + torch.tanh(other)


class Normed(nn.Module):
    """Norms that mix channels, or that do not."""

    def __init__(self, draw: random.Random, inputs: int) -> None:
        super().__init__()
        self.units = 2 * draw.randint(2, 3)
        self.conv = nn.Conv2d(inputs, self.units, 3, padding=1)
        self.norm = draw.choice(
            [
                nn.GroupNorm(2, self.units),
                nn.GroupNorm(self.units, self.units),
                nn.InstanceNorm2d(self.units, affine=True),
                nn.InstanceNorm2d(self.units),
                nn.LayerNorm(self.units),
            ]
        )
        self.act = Act(draw)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(x))
        if isinstance(self.norm, nn.LayerNorm):
            return self.norm(x.movedim(1, -1)).movedim(-1, 1)
        return self.norm(x)


class Transformer(nn.Module):
    """Attention and a hidden layer on a stream of tokens with layer norms."""

    def __init__(self, draw: random.Random, inputs: int) -> None:
        super().__init__()
        self.units = 4
        self.embed = nn.Conv2d(inputs, 4, 1)
        self.position = nn.Parameter(torch.randn(1, 1, 4))
        self.norm1, self.norm2 = nn.LayerNorm(4), nn.LayerNorm(4)
        self.attention = draw.choice([None, nn.MultiheadAttention(4, 2, batch_first=True)])
        self.value, self.out = nn.Linear(4, 6), nn.Linear(6, 4)
        self.hidden, self.act, self.back = nn.Linear(4, 7), Act(draw), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        side = x.shape[-1]
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.position
        seen = self.norm1(tokens)
        if self.attention is None:
            scores = (seen @ seen.transpose(1, 2)).softmax(-1)
            tokens = tokens + self.out(scores @ self.value(seen))
        else:
            tokens = tokens + self.attention(seen, seen, seen, need_weights=False)[0]
        tokens = tokens + self.back(self.act(self.hidden(self.norm2(tokens))))
        return tokens.transpose(1, 2).unflatten(2, (side, -1))


class ActiveAtZero(nn.Module):
    """An activation that is not silent at zero."""

    def __init__(self, draw: random.Random, inputs: int) -> None:
        super().__init__()
        self.units = draw.randint(2, 4)
        self.conv = nn.Conv2d(inputs, self.units, 3, padding=1)
        self.act = draw.choice([nn.Sigmoid(), nn.Softplus(), torch.sigmoid, lambda x: F.relu(x + 1)])

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


class Computed(nn.Module):
    """Weights that are computed, frozen, or tied."""

    def __init__(self, draw: random.Random, inputs: int) -> None:
        super().__init__()
        self.units = draw.randint(2, 4)
        first, second = nn.Conv2d(inputs, 5, 3, padding=1), nn.Conv2d(5, self.units, 3, padding=1)
        self.third = nn.Conv2d(self.units, self.units, 1)
        kind = draw.choice(["weight norm", "spectral norm", "frozen", "tied"])
        if kind == "weight norm":
            first, second = weight_norm(first), draw.choice([second, weight_norm(second)])
        elif kind == "spectral norm":
            second = spectral_norm(second)
        elif kind == "frozen":
            for parameter in first.parameters():
                parameter.requires_grad_(False)
        self.first, self.second = first, second
        self.fourth = nn.Conv2d(self.units, self.units, 1)
        if kind == "tied":
            self.fourth.weight = self.third.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.fourth(F.relu(self.third(F.relu(self.second(F.relu(self.first(x)))))))


class Owned(nn.Module):
    """Parameters that no single layer owns: a scale, a bias, a mask."""

    def __init__(self, draw: random.Random, inputs: int) -> None:
        super().__init__()
        self.units = draw.randint(2, 4)
        self.conv, self.next = (
            nn.Conv2d(inputs, self.units, 3, padding=1),
            nn.Conv2d(self.units, self.units, 1),
        )
        self.gamma = nn.Parameter(torch.rand(self.units, 1, 1))
        self.bias = nn.Parameter(torch.randn(self.units, 1, 1)) if draw.choice([True, False]) else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.gamma * self.conv(x)
        return self.next(F.relu(x if self.bias is None else x + self.bias))


class Product(nn.Module):
    """Two branches multiplied."""

    def __init__(self, draw: random.Random, inputs: int) -> None:
        super().__init__()
        self.units = draw.randint(3, 5)
        self.one, self.other = nn.Conv2d(inputs, self.units, 1), nn.Conv2d(inputs, self.units, 3, padding=1)
        self.norm = nn.BatchNorm2d(self.units)
        self.act = draw.choice([F.relu, torch.tanh, F.silu])

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.relu(self.one(x)) * self.act(self.other(x)))


class Resized(nn.Module):
    """Pooling of every sort, upsampling, permutation, dropout."""

    def __init__(self, draw: random.Random, inputs: int) -> None:
        super().__init__()
        self.units = draw.randint(2, 5)
        self.conv, self.drop = nn.Conv2d(inputs, self.units, 3), nn.Dropout2d(0.4)
        self.last = nn.Linear(self.units, self.units)
        self.pool = draw.choice([nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(3), nn.Identity()])

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.pool(F.relu(self.conv(x))))
        x = F.interpolate(x, size=(6, 6), mode="nearest")
        return F.relu(self.last(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class OwnGRU(nn.GRU):
    """Of no known kind, for its forward is its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[0]


class Recurrent(nn.Module):
    """Another kind of layer with weights reads a map."""

    def __init__(self, draw: random.Random, inputs: int) -> None:
        super().__init__()
        self.units = draw.randint(2, 4)
        self.conv, self.gru = nn.Conv2d(inputs, 4, 1), OwnGRU(4, self.units, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        rows = F.relu(self.conv(x)).flatten(2).transpose(1, 2)
        return self.gru(rows).transpose(1, 2).unflatten(2, x.shape[2:])


KINDS: dict[str, Callable[[random.Random, int], nn.Module]] = {
    "identity shortcut": lambda draw, inputs: Residual(draw, inputs, "identity"),
    "projected shortcut": lambda draw, inputs: Residual(draw, inputs, "projected"),
    "padded shortcut": lambda draw, inputs: Residual(draw, inputs, "padded"),
    "dense": Dense,
    "inception": Inception,
    "u-net": UNet,
    "grouped": Grouped,
    "depthwise": Depthwise,
    "squeeze and excitation": SqueezeExcitation,
    "shared": Shared,
    "other dimensions": OtherDimensions,
    "split": Split,
    "normed": Normed,
    "transformer": Transformer,
    "active at zero": ActiveAtZero,
    "computed": Computed,
    "owned": Owned,
    "product": Product,
    "resized": Resized,
    "recurrent": Recurrent,
}


class Network(nn.Module):
    """Blocks between a stem and a head; perhaps several inputs and outputs."""

    def __init__(self, draw: random.Random, kinds: list[str]) -> None:
        super().__init__()
        width = draw.randint(3, 6)
        self.stem, self.act = conv_norm(draw, 2, width), Act(draw)
        blocks = []
        for kind in kinds:
            blocks.append(KINDS[kind](draw, width))
            width = blocks[-1].units
        self.blocks = nn.ModuleList(blocks)
        self.output = draw.choice(["one", "two", "dictionary"])
        self.side = nn.Linear(3, width) if draw.choice([True, False]) else None
        self.flat = draw.choice([True, False])
        self.last = nn.Conv2d(width, 4, 1)
        self.head = nn.Sequential(nn.LazyLinear(6), nn.ReLU(), nn.Linear(6, 3))
        self.unused = nn.Linear(2, 2)

    def forward(self, images: Tensor, extra: Tensor | None = None) -> object:
        x = self.act(self.stem(images))
        for block in self.blocks:
            x = block(x)
        if self.side is not None and extra is not None:
            x = x + F.relu(self.side(extra))[:, :, None, None]
        x = F.relu(self.last(x))
        out = self.head(x.flatten(1) if self.flat else x.mean((2, 3)))
        return {"one": out, "two": (out, x.sum()), "dictionary": {"logits": out}}[self.output]


class SpikingBlocks(nn.Module):
    """Spikes over [T, B, ...]: a block with added spikes, and fully connected neurons."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()

        def neuron() -> nn.Module:
            kind = draw.choice([IF, LIF, PLIF])
            return kind(
                threshold=0.4, reset=draw.choice(["hard", "soft"]), detach_reset=draw.choice([True, False])
            )

        width, inner = draw.randint(3, 6), draw.randint(2, 5)
        self.stem, self.first = conv_norm(draw, 2, width), neuron()
        self.inner, self.second = FoldTime(conv_norm(draw, width, inner)), neuron()
        self.outer, self.third = FoldTime(conv_norm(draw, inner, width)), neuron()
        self.join = draw.choice(["add", "and", "cat"])
        self.flat = FoldTime(nn.AvgPool2d(4), nn.Flatten(), nn.LazyLinear(7))
        self.fourth, self.head = neuron(), FoldTime(nn.Linear(7, 3))

    def forward(self, images: Tensor) -> Tensor:
        current = self.stem(images)
        stream = self.first(current.expand(4, *current.shape))
        branch = self.third(self.outer(self.second(self.inner(stream))))
        if self.join == "cat":
            joined = torch.cat([stream, branch], 2)
        else:
            joined = stream + branch if self.join == "add" else stream * branch
        return self.head(self.fourth(self.flat(joined))).mean(0)


class Drawn(NamedTuple):
    """A network, what it is run on, and what was drawn."""

    model: nn.Module
    inputs: Inputs
    kinds: list[str]
    seed: int

    def __repr__(self) -> str:
        dtype = next(self.model.parameters()).dtype
        return f"build({self.kinds}, {self.seed}, {dtype})"

    def _repr_pretty_(self, printer: object, cycle: bool) -> None:
        printer.text(repr(self))


def build(kinds: list[str], seed: int, dtype: torch.dtype) -> Drawn:
    """The network of a seed: its statistics, scales and offsets are nowhere those of a fresh one."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    images = torch.randn(4, 2, 8, 8)
    model: nn.Module
    inputs: Inputs
    if kinds == ["spiking"]:
        model, inputs = SpikingBlocks(draw), (3 * images.abs(),)
    else:
        model = Network(draw, kinds)
        extra = torch.randn(4, 3)
        inputs = {"images": images, "extra": extra} if draw.choice([True, False]) else (images, extra)
    with torch.no_grad():
        model(**inputs) if isinstance(inputs, dict) else model(*inputs)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, std=0.5)
            nn.init.normal_(module.running_mean, std=0.2)
    model.to(dtype)
    cast = {key: value.to(dtype) for key, value in inputs.items()} if isinstance(inputs, dict) else None
    return Drawn(model, cast or tuple(value.to(dtype) for value in inputs), kinds, seed)


@st.composite
def networks(draw: st.DrawFn, kind: str) -> Drawn:
    """A network with a block of a kind, and up to two of any."""
    others = [] if kind == "spiking" else draw(st.lists(st.sampled_from(sorted(KINDS)), max_size=2))
    kinds = [kind, *others] if draw(st.booleans()) else [*others, kind]
    seed, dtype = draw(st.integers(0, 2**20)), draw(st.sampled_from([torch.float64, torch.float32]))
    # beartype checks an item of a container by the global generator, and hypothesis allows no strategy to use that
    state = random.getstate()
    try:
        return build(kinds, seed, dtype)
    finally:
        random.setstate(state)
