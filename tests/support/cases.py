"""Layers and networks that are hard to look through."""

import torch
from torch import Tensor, nn


class LowRank(nn.Linear):
    """A low-rank path beside the weight, which starts at zero."""

    def __init__(self, features: int, units: int) -> None:
        super().__init__(features, units)
        self.down = nn.Parameter(torch.randn(3, features))
        self.up = nn.Parameter(torch.zeros(units, 3))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x @ self.down.T @ self.up.T


class EarlyExit(nn.Module):
    """Leaves early where what is hidden is strong."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = nn.Linear(6, 12), nn.Linear(12, 14)
        self.early, self.late = nn.Linear(12, 3), nn.Linear(14, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.stem(x))
        if hidden.mean() > 1:
            return self.early(hidden)
        return self.late(torch.relu(self.deep(hidden)))
