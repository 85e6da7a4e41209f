"""Networks whose first layer computes several rows for each of its units."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UNITS = 8


def _swish(h: Tensor) -> Tensor:
    value, gate = h.chunk(2, -1)
    return value * F.silu(gate)


def _four(h: Tensor) -> Tensor:
    one, two, three, four = h.chunk(4, -1)
    return (one + two) * torch.tanh(three) * torch.sigmoid(four)


SPLITS: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    "sigmoid": (2, lambda h: F.glu(h, -1)),
    "swish": (2, _swish),
    "interleaved": (2, lambda h: F.gelu(h[..., ::2]) * h[..., 1::2]),
    "last axis": (2, lambda h: torch.prod(h.unflatten(-1, (-1, 2)), -1)),
    "maxout": (3, lambda h: h.unflatten(-1, (3, -1)).amax(-2)),
    "four": (4, _four),
}
"""How -> rows a unit has, and what makes one feature of them."""


class FusedNetwork(nn.Module):
    """A fused layer between two others.

    Args:
        how: what makes one feature of the rows.
        bias: whether the fused layer has one.
        gate: multiplied into what the units have become [unit], for comparison.
    """

    def __init__(self, how: str, bias: bool = True) -> None:
        super().__init__()
        rows, self.split = SPLITS[how]
        self.first = nn.Linear(5, 6)
        self.fused = nn.Linear(6, rows * UNITS, bias=bias)
        self.down = nn.Linear(UNITS, 6)
        self.head = nn.Linear(6, 3)
        self.gate: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[sample, 5] to [sample, 3]."""
        h = self.split(self.fused(F.relu(self.first(x))))
        if self.gate is not None:
            h = h * self.gate
        return self.head(F.relu(self.down(h)))


class FusedConvolutions(nn.Module):
    """Fused convolutions, with norms and depthwise convolutions before and after the rows become one."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(3, 2 * UNITS, 1)
        self.deep = nn.Conv1d(UNITS, UNITS, 3, padding=1, groups=UNITS, bias=False)
        self.norm = nn.BatchNorm1d(UNITS)
        self.two = nn.ConvTranspose1d(UNITS, 2 * UNITS, 1)
        self.rows = nn.BatchNorm1d(2 * UNITS)
        self.both = nn.Conv1d(2 * UNITS, 2 * UNITS, 3, padding=1, groups=2 * UNITS, bias=False)
        self.head = nn.Linear(UNITS, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[sample, 3, place] to [sample, 3]."""
        x = F.silu(self.norm(self.deep(F.glu(self.one(x), 1))))
        value, gate = self.both(self.rows(self.two(x))).chunk(2, 1)
        return self.head((value * torch.tanh(gate)).mean(-1))


class TransposedLinear(nn.Module):
    """A weight layer with its weight as [feature, unit]."""

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(features, units) / features)
        self.offset = nn.Parameter(torch.zeros(units))

    def forward(self, x: Tensor) -> Tensor:
        """[..., feature] to [..., unit]."""
        return x @ self.kernel + self.offset


class WrittenOutCell(nn.Module):
    """An LSTM or GRU as people write it themselves: all gates by one layer of the input and one of the state."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        gates = {"lstm": 4, "gru": 3}[kind]
        self.kind = kind
        self.read, self.loop = nn.Linear(5, gates * UNITS), nn.Linear(UNITS, gates * UNITS, bias=False)
        self.head = nn.Linear(UNITS, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[sample, time * 5] to [sample, 3]."""
        h = c = x.new_zeros(len(x), self.loop.in_features)
        for each in x.unflatten(1, (-1, 5)).unbind(1):
            read, loop = self.read(each), self.loop(h)
            if self.kind == "lstm":
                i, f, g, o = (read + loop).chunk(4, -1)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
            else:
                (r, z, n), (hr, hz, hn) = read.chunk(3, -1), loop.chunk(3, -1)
                z = (z + hz).sigmoid()
                h = (1 - z) * (n + (r + hr).sigmoid() * hn).tanh() + z * h
        return self.head(h)


class LowRankNetwork(nn.Module):
    """A low-rank path beside a fused layer, as adapters add it."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.low = nn.Linear(5, 2 * UNITS), nn.Linear(5, 2, bias=False)
        self.high = nn.Linear(2, 2 * UNITS, bias=False)
        self.down, self.head = nn.Linear(UNITS, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[sample, 5] to [sample, 3]."""
        return self.head(F.relu(self.down(F.glu(self.base(x) + self.high(self.low(x)), -1))))


class StreamOfUnits(nn.Module):
    """Gated linear units that are added to a residual stream, and gated once more by an average of themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one = nn.Linear(5, UNITS), nn.Linear(UNITS, 2 * UNITS)
        self.two, self.gate = nn.Linear(UNITS, 2 * UNITS), nn.Linear(UNITS, UNITS)
        self.head = nn.Linear(UNITS, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[sample, 5] to [sample, 3]."""
        x = self.first(x)
        x = x + F.glu(self.one(x), -1)
        x = x + F.glu(self.two(x), -1)
        return self.head(x * self.gate(x).sigmoid())
