"""Networks of sinabs, with time folded into the batch."""

import importlib
from functools import partial

import torch
from networks import firing
from torch import nn

from zoo.measure import Example, Maker

PACKAGE = "sinabs"


def load() -> None:
    """Import the package."""
    importlib.import_module("sinabs.layers")


def convolutional(kind: str) -> Example:
    """Two convolutions and an output layer, five steps of two samples."""
    layers = importlib.import_module("sinabs.layers")
    options = {"tau_mem": 20.0} if "LIF" in kind else {}

    def spike() -> nn.Module:
        return getattr(layers, kind)(batch_size=2, **options)

    network = nn.Sequential(
        nn.Conv2d(1, 8, 3),
        spike(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 8, 3),
        spike(),
        nn.Flatten(),
        nn.Linear(72, 4),
    )
    return firing(network), (torch.rand(10, 1, 12, 12),)


NETWORKS: dict[str, Maker] = {
    "sinabs IAF": partial(convolutional, "IAFSqueeze"),
    "sinabs LIF": partial(convolutional, "LIFSqueeze"),
}
