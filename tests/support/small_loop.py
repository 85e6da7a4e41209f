"""A loop that takes no time: a network of three layers, and a task that it learns."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

X = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
Y = (X[:, :4] + X[:, 4:8]).argmax(1)
BATCHES = list(zip(X.split(8), Y.split(8), strict=True))


def small_network() -> nn.Sequential:
    """Always of the same weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


def backward(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """The gradients of a batch."""
    cross_entropy(model(x), y).backward()


def run_epoch(model: nn.Module, optimizer: Any, clear: Any = None) -> None:
    """Once through the data; `clear` clears gradients in the optimizer's place."""
    for x, y in BATCHES:
        (clear or optimizer.zero_grad)()
        backward(model, x, y)
        optimizer.step()
