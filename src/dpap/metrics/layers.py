"""Which modules carry weights, and evaluation that leaves a network as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import nn

WeightModule: TypeAlias = nn.Linear | nn.modules.conv._ConvNd


def weight_layers(model: nn.Module) -> dict[str, WeightModule]:
    """Every convolution and fully connected layer by its name, in the order of definition, each once."""
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each module is in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
