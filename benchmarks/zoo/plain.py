"""Small networks of torch alone: convolutional kinds that no package above has in this form."""

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from zoo.measure import Example, Maker

PACKAGE = "torch"


def load() -> None:
    """Nothing further is needed."""


class TemporalBlock(nn.Module):
    """Two dilated causal convolutions with weight norm, and a shortcut."""

    def __init__(self, features: int, units: int, dilation: int, norm: bool) -> None:
        super().__init__()
        self.padding = 2 * dilation
        wrap = parametrizations.weight_norm if norm else nn.Identity()
        self.conv1 = wrap(nn.Conv1d(features, units, 3, dilation=dilation))
        self.conv2 = wrap(nn.Conv1d(units, units, 3, dilation=dilation))
        self.shortcut = nn.Conv1d(features, units, 1) if features != units else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The stream after this block."""
        y = F.relu(self.conv1(F.pad(x, (self.padding, 0))))
        y = F.relu(self.conv2(F.pad(y, (self.padding, 0))))
        return F.relu(y + self.shortcut(x))


class TCN(nn.Module):
    """Temporal convolutional network (Bai et al., 2018)."""

    def __init__(self, norm: bool, widths: tuple[int, ...] = (4, 16, 16, 24)) -> None:
        super().__init__()
        blocks = (TemporalBlock(a, b, 2**place, norm) for place, (a, b) in enumerate(pairwise(widths)))
        self.blocks, self.out = nn.Sequential(*blocks), nn.Linear(widths[-1], 5)

    def forward(self, x: Tensor) -> Tensor:
        """Logits after the last step."""
        return self.out(self.blocks(x)[..., -1])


def tcn(norm: bool) -> Example:
    """With weight norm or without."""
    return TCN(norm), (torch.rand(2, 4, 30),)


class WaveNet(nn.Module):
    """Gated dilated convolutions with residual and skip paths (van den Oord et al., 2016)."""

    def __init__(self, width: int = 16, skip: int = 24, depth: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, width, 1)
        self.gates = nn.ModuleList(
            nn.Conv1d(width, 2 * width, 2, dilation=2**place) for place in range(depth)
        )
        self.residual = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(depth))
        self.skip = nn.ModuleList(nn.Conv1d(width, skip, 1) for _ in range(depth))
        self.out = nn.Sequential(nn.ReLU(), nn.Conv1d(skip, skip, 1), nn.ReLU(), nn.Conv1d(skip, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every step."""
        x, total = self.stem(x), 0
        for gate, residual, skip in zip(self.gates, self.residual, self.skip, strict=True):
            one, other = gate(F.pad(x, (gate.dilation[0], 0))).chunk(2, 1)
            y = torch.tanh(one) * torch.sigmoid(other)
            total = total + skip(y)
            x = x + residual(y)
        return self.out(total)


class ConvTasNet(nn.Module):
    """Masks in a learned basis (Luo and Mesgarani, 2019): depthwise separable blocks, global norm, PReLU."""

    def __init__(self, basis: int = 32, width: int = 16, inner: int = 32, depth: int = 3) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, basis, 16, stride=8)
        self.norm, self.narrow = nn.GroupNorm(1, basis), nn.Conv1d(basis, width, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(width, inner, 1), nn.PReLU(), nn.GroupNorm(1, inner),
                nn.Conv1d(inner, inner, 3, padding=2**place, dilation=2**place, groups=inner), nn.PReLU(),
                nn.GroupNorm(1, inner), nn.Conv1d(inner, width, 1),
            )
            for place in range(depth)
        )  # fmt: skip
        self.masks = nn.Conv1d(width, 2 * basis, 1)
        self.decoder = nn.ConvTranspose1d(basis, 1, 16, stride=8)

    def forward(self, x: Tensor) -> Tensor:
        """Two sources."""
        code = F.relu(self.encoder(x))
        y = self.narrow(self.norm(code))
        for block in self.blocks:
            y = y + block(y)
        masks = torch.sigmoid(self.masks(y)).unflatten(1, (2, -1))
        return torch.stack([self.decoder(code * masks[:, place]) for place in range(2)], 1)


class ConformerBlock(nn.Module):
    """Half steps of a perceptron around attention and a gated convolution (Gulati et al., 2020)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first, self.last = self.perceptron(width), self.perceptron(width)
        self.norm1, self.attention = nn.LayerNorm(width), nn.MultiheadAttention(width, 4, batch_first=True)
        self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.conv = nn.Sequential(
            nn.Conv1d(width, 2 * width, 1), nn.GLU(1), nn.Conv1d(width, width, 7, padding=3, groups=width),
            nn.BatchNorm1d(width), nn.SiLU(), nn.Conv1d(width, width, 1),
        )  # fmt: skip

    @staticmethod
    def perceptron(width: int) -> nn.Sequential:
        """Four times as wide inside."""
        return nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The stream after this block."""
        x = x + self.first(x) / 2
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.conv(self.norm2(x).transpose(1, 2)).transpose(1, 2)
        return self.norm3(x + self.last(x) / 2)


class NestedUNet(nn.Module):
    """U-Net++ (Zhou et al., 2018): every level's maps are joined with all that were upsampled to it."""

    def __init__(self, widths: tuple[int, ...] = (8, 16, 24), classes: int = 2) -> None:
        super().__init__()
        self.depth, self.down, self.nested = len(widths), nn.ModuleList(), nn.ModuleDict()
        for features, units in pairwise((3, *widths)):
            self.down.append(self.twice(features, units))
        for column in range(1, self.depth):
            for level in range(self.depth - column):
                features = column * widths[level] + widths[level + 1]
                self.nested[f"{level}_{column}"] = self.twice(features, widths[level])
        self.out = nn.Conv2d(widths[0], classes, 1)

    @staticmethod
    def twice(features: int, units: int) -> nn.Sequential:
        """Two convolutions."""
        return nn.Sequential(
            nn.Conv2d(features, units, 3, padding=1), nn.BatchNorm2d(units), nn.ReLU(),
            nn.Conv2d(units, units, 3, padding=1), nn.BatchNorm2d(units), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every pixel."""
        rows: list[list[Tensor]] = []
        for level, down in enumerate(self.down):
            x = down(x if level == 0 else F.max_pool2d(x, 2))
            rows.append([x])
        for column in range(1, self.depth):
            for level in range(self.depth - column):
                up = F.interpolate(rows[level + 1][column - 1], scale_factor=2.0)
                rows[level].append(self.nested[f"{level}_{column}"](torch.cat([*rows[level], up], 1)))
        return self.out(rows[0][-1])


class CSPBlock(nn.Module):
    """C2f of recent YOLOs: the map is split, one half passes bottlenecks, all parts are joined."""

    def __init__(self, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.SiLU())
        self.inner = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width // 2, width // 2, 3, padding=1), nn.SiLU()) for _ in range(depth)
        )
        self.leave = nn.Conv2d(width // 2 * (2 + depth), width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Joined parts."""
        parts = list(self.enter(x).chunk(2, 1))
        for inner in self.inner:
            parts.append(inner(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class MixtureOfExperts(nn.Module):
    """The best of four perceptrons for each sample, by a router."""

    def __init__(self, width: int = 12, experts: int = 4) -> None:
        super().__init__()
        self.stem, self.router = nn.Linear(6, width), nn.Linear(width, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, width)) for _ in range(experts)
        )
        self.out = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.relu(self.stem(x))
        share = self.router(x).softmax(-1)
        chosen = share.argmax(-1)
        y = torch.zeros_like(x)
        for place, expert in enumerate(self.experts):
            here = chosen == place
            if here.any():
                y[here] = share[here, place, None] * expert(x[here])
        return self.out(x + y)


class SplineLayer(nn.Module):
    """Kolmogorov-Arnold layer: each connection is a sum of bumps on a grid (Liu et al., 2024)."""

    def __init__(self, features: int, units: int, grid: int = 5) -> None:
        super().__init__()
        self.register_buffer("grid", torch.linspace(-2, 2, grid))
        self.spline = nn.Linear(features * grid, units, bias=False)
        self.base = nn.Linear(features, units)

    def forward(self, x: Tensor) -> Tensor:
        """Sum over all connections."""
        bumps = torch.exp(-((x[..., None] - self.grid) ** 2)).flatten(-2)
        return self.spline(bumps) + self.base(F.silu(x))


class LoRALinear(nn.Linear):
    """A linear layer with a correction of low rank beside its weight (Hu et al., 2021)."""

    def __init__(self, features: int, units: int, rank: int = 2) -> None:
        super().__init__(features, units)
        self.down = nn.Parameter(torch.randn(rank, features))
        self.up = nn.Parameter(torch.randn(units, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Weight and correction."""
        return super().forward(x) + x @ self.down.T @ self.up.T


class Siamese(nn.Module):
    """One network on two inputs, and the distance of what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 16), nn.ReLU(), nn.Linear(16, 8)
        )

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Distances."""
        return (self.net(one) - self.net(other)).square().sum(1)


class GraphConvolution(nn.Module):
    """Two graph convolutions with a dense adjacency (Kipf and Welling, 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """Logits of every node."""
        return adjacency @ self.fc2(F.relu(adjacency @ self.fc1(x)))


def quantised() -> Example:
    """Prepared for quantisation-aware training: fake quantisation with observers."""
    from torch.ao.quantization import QConfigMapping, get_default_qat_qconfig
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    model = nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 4),
    )
    images = torch.rand(2, 1, 8, 8)
    mapping = QConfigMapping().set_global(get_default_qat_qconfig("fbgemm"))
    prepared = prepare_qat_fx(model.train(), mapping, (images,))
    prepared(images)
    return prepared, (images,)


def network(build: type[nn.Module], *shapes: tuple[int, ...]) -> Example:
    """A network and inputs of the given shapes."""
    return build(), tuple(torch.rand(shape) for shape in shapes)


def stacked(layer: type[nn.Module]) -> Example:
    """Three layers of a kind."""
    model = nn.Sequential(layer(6, 16), nn.ReLU(), layer(16, 16), nn.ReLU(), layer(16, 3))
    return model, (torch.rand(2, 6),)


def conformer() -> Example:
    """Two blocks."""
    model = nn.Sequential(nn.Linear(8, 16), ConformerBlock(), ConformerBlock(), nn.Linear(16, 5))
    return model, (torch.rand(2, 20, 8),)


def encoder() -> Example:
    """Torch's own transformer encoder."""
    layer = nn.TransformerEncoderLayer(16, 4, 64, batch_first=True, norm_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 5))
    return model, (torch.rand(2, 10, 16),)


def csp() -> Example:
    """A C2f block between convolutions."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), CSPBlock(), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 16, 4),
    )  # fmt: skip
    return model, (torch.rand(2, 3, 8, 8),)


NETWORKS: dict[str, Maker] = {
    "TCN": partial(tcn, False),
    "TCN with weight norm": partial(tcn, True),
    "WaveNet": partial(network, WaveNet, (2, 1, 40)),
    "Conv-TasNet": partial(network, ConvTasNet, (2, 1, 160)),
    "Conformer": conformer,
    "transformer encoder": encoder,
    "U-Net++": partial(network, NestedUNet, (2, 3, 16, 16)),
    "C2f": csp,
    "mixture of experts": partial(network, MixtureOfExperts, (16, 6)),
    "KAN": partial(stacked, SplineLayer),
    "LoRA": partial(stacked, LoRALinear),
    "quantisation-aware": quantised,
    "siamese": partial(network, Siamese, (2, 1, 8, 8), (2, 1, 8, 8)),
    "graph convolution": partial(network, GraphConvolution, (10, 6), (10, 10)),
}
