"""Networks that import nothing of dpap: another process builds them without it."""

from collections import OrderedDict

import torch
from torch import Tensor, nn


def chain(width: int = 12) -> nn.Module:
    """Modules of torch.nn in turn, with every count that removal changes."""
    return nn.Sequential(
        OrderedDict(
            first=nn.Conv2d(2, width, 3, padding=1, bias=False), norm=nn.BatchNorm2d(width), act=nn.PReLU(width),
            deep=nn.Sequential(nn.Conv2d(width, width, (3, 1), groups=width), nn.InstanceNorm2d(width, affine=True)),
            relu=nn.ReLU(), up=nn.ConvTranspose2d(width, 8, 2, stride=2, groups=2), pool=nn.AdaptiveAvgPool2d((2, 3)),
            flat=nn.Flatten(), head=nn.Linear(48, 10), last=nn.Hardswish(), out=nn.Linear(10, 3),
        )
    )  # fmt: skip


class Scale(nn.Module):
    """A parameter and a buffer with a value for each unit, in a module of its own."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(units))
        self.register_buffer("scale", torch.ones(units))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain * self.scale


class Gated(nn.Module):
    """A residual stream, two arguments by name, parameters of its own, and a tied weight."""

    def __init__(self, units: int, *, classes: int) -> None:
        super().__init__()
        self.embed = nn.Linear(9, 8)
        self.inner, self.outer = nn.Linear(8, units), nn.Linear(units, 8)
        self.scale = Scale(units)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        self.head, self.again = nn.Linear(8, classes), nn.Linear(8, classes)
        self.again.weight = self.head.weight

    def forward(self, x: Tensor) -> Tensor:
        stream = torch.relu(self.embed(x))
        stream = stream + self.outer(self.scale(torch.relu(self.inner(stream))))
        logits: Tensor = self.head(torch.relu(self.normed(stream))) + self.again(stream)
        return logits

    def get_extra_state(self) -> dict[str, int]:
        return {"calls": 3}

    def set_extra_state(self, state: dict[str, int]) -> None:
        assert state == {"calls": 3}


class Heard(nn.Module):
    """Recurrent layers with projections, in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(9, 11)
        self.lstm = nn.LSTM(11, 12, bidirectional=True, proj_size=5, batch_first=True)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        sequence, _ = self.lstm(torch.relu(self.before(x)).unsqueeze(1).expand(-1, 4, -1))
        logits: Tensor = self.head(sequence[:, -1])
        return logits


class Turned(nn.Module):
    """A layer with a count and a weight under names of its own."""

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.width = units
        self.kernel = nn.Parameter(torch.randn(features, units))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.kernel).view(*x.shape[:-1], self.width)


def turned() -> nn.Module:
    """Layers that another package defines."""
    return nn.Sequential(Turned(9, 30), nn.ReLU(), Turned(30, 3)).double()
