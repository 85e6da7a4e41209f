"""Networks of Norse, whose cells take and return their state."""

import importlib

import torch
from networks import firing
from torch import Tensor, nn

from zoo.measure import Example, Maker

PACKAGE = "norse"


def load() -> None:
    """Import the package."""
    importlib.import_module("norse.torch")


def sequential() -> Example:
    """Convolutions and leaky cells in Norse's own container, one timestep."""
    norse = importlib.import_module("norse.torch")
    network = norse.SequentialState(
        nn.Conv2d(1, 8, 3),
        norse.LIFCell(),
        nn.Conv2d(8, 8, 3),
        norse.LIFCell(),
        nn.Flatten(),
        nn.Linear(128, 4),
    )
    return firing(network), (torch.rand(2, 1, 8, 8),)


class Loop(nn.Module):
    """Leaky cells over time, the state in Python."""

    def __init__(self) -> None:
        super().__init__()
        norse = importlib.import_module("norse.torch")
        self.fc1, self.lif1, self.fc2, self.out = (
            nn.Linear(20, 32),
            norse.LIFCell(),
            nn.Linear(32, 4),
            norse.LICell(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Membrane of the output at every step."""
        state1 = state2 = None
        found = []
        for step in x:
            spikes, state1 = self.lif1(self.fc1(step), state1)
            voltage, state2 = self.out(self.fc2(spikes), state2)
            found.append(voltage)
        return torch.stack(found)


def loop() -> Example:
    """Five steps of three samples."""
    return firing(Loop()), (torch.rand(5, 3, 20),)


NETWORKS: dict[str, Maker] = {"Norse SequentialState": sequential, "Norse loop over cells": loop}
