"""Networks of snnTorch, stepped in Python as its tutorials do."""

import importlib
from functools import partial
from typing import Any

import torch
from networks import firing, snntorch_conv
from torch import Tensor, nn

from zoo.measure import Example, Maker

PACKAGE = "snntorch"


def load() -> None:
    """Import the package."""
    importlib.import_module("snntorch")


class Perceptron(nn.Module):
    """Two layers of a kind of neuron; the state is the neurons' own."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        snntorch = importlib.import_module("snntorch")
        neuron = partial(getattr(snntorch, kind), init_hidden=True, **options)
        self.net = nn.Sequential(
            nn.Linear(20, 32), neuron(), nn.Linear(32, 24), neuron(), nn.Linear(24, 4), neuron()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of every step."""
        for module in self.net:
            for reset in ("reset_mem", "reset_hidden"):
                getattr(module, reset, lambda: None)()
        return torch.stack([self.net(step) for step in x])


class Passed(nn.Module):
    """States passed in and out by the caller: a forward is one timestep."""

    def __init__(self) -> None:
        super().__init__()
        snntorch = importlib.import_module("snntorch")
        self.fc1, self.lif1 = nn.Linear(20, 32), snntorch.Leaky(beta=0.9)
        self.fc2, self.lif2 = nn.Linear(32, 4), snntorch.Leaky(beta=0.9)

    def forward(self, x: Tensor, mem1: Tensor, mem2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Spikes and both membranes."""
        spikes, mem1 = self.lif1(self.fc1(x), mem1)
        spikes, mem2 = self.lif2(self.fc2(spikes), mem2)
        return spikes, mem1, mem2


def perceptron(kind: str, **options: Any) -> Example:
    """Five steps of three samples."""
    return firing(Perceptron(kind, **options)), (torch.rand(5, 3, 20),)


def passed() -> Example:
    """One step."""
    return firing(Passed()), (torch.rand(3, 20), torch.zeros(3, 32), torch.zeros(3, 4))


NETWORKS: dict[str, Maker] = {
    "snnTorch tutorial 6": partial(snntorch_conv, 5),
    "snnTorch Leaky": partial(perceptron, "Leaky", beta=0.9),
    "snnTorch Synaptic": partial(perceptron, "Synaptic", alpha=0.8, beta=0.9),
    "snnTorch Alpha": partial(perceptron, "Alpha", alpha=0.9, beta=0.8),
    "snnTorch Lapicque": partial(perceptron, "Lapicque", beta=0.9),
    "snnTorch recurrent": partial(perceptron, "RLeaky", beta=0.9, linear_features=32, all_to_all=False),
    "snnTorch, states passed": passed,
}
