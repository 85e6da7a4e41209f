"""Networks of torch_geometric on a small random graph."""

import importlib
from functools import partial

import torch

from zoo.measure import Example, Maker

PACKAGE = "torch_geometric"
NAMES = ("GCN", "GraphSAGE", "GIN", "GAT")


def load() -> None:
    """Import the package."""
    importlib.import_module("torch_geometric.nn")


def make(name: str) -> Example:
    """A network of three layers, 20 nodes and 60 edges."""
    models = importlib.import_module("torch_geometric.nn.models")
    network = getattr(models, name)(6, 16, num_layers=3, out_channels=4)
    return network, (torch.rand(20, 6), torch.randint(20, (2, 60)))


def point_cloud() -> Example:
    """A multilayer perceptron with batch norm, as point clouds use it."""
    models = importlib.import_module("torch_geometric.nn.models")
    return models.MLP([6, 32, 32, 4]), (torch.rand(20, 6),)


NETWORKS: dict[str, Maker] = {
    **{f"torch_geometric {name}": partial(make, name) for name in NAMES},
    "torch_geometric MLP": point_cloud,
}
