"""What learns: network, optimizer and pruner, built from a configuration or brought back from a checkpoint."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from dpap.data import DataBundle
from dpap.experiment.config import ExperimentConfig, TrainingConfig
from dpap.experiment.errors import blame
from dpap.models import build_network
from dpap.pruner import Pruner
from dpap.spiking import SpikingNeuron

EXAMPLES = 16  # samples on which the wiring is found and every removal is checked


@dataclass
class Learner:
    """A network and what changes it.

    Attributes:
        model: the network.
        optimizer: of its parameters.
        pruner: None of a dense twin.
        device: where they are.
    """

    model: nn.Module
    optimizer: Optimizer
    pruner: Pruner | None
    device: torch.device

    def arrange(self, training: TrainingConfig) -> None:
        """Lay the weights out as the configuration asks; cutting them does not keep the layout."""
        if training.channels_last:
            for parameter in self.model.parameters():
                if parameter.ndim == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def state(self) -> dict[str, Any]:
        """Tensors and plain values that `restore` takes."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "pruner": self.pruner.state_dict() if self.pruner is not None else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become what `state` was taken from; this learner must be freshly built.

        The pruner comes first, for it shrinks network and optimizer to the shapes that their states have.
        """
        if self.pruner is not None:
            self.pruner.load_state_dict(state["pruner"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


def build_learner(config: ExperimentConfig, data: DataBundle, device: torch.device) -> Learner:
    """A newborn learner; the same seed gives the same weights.

    Raises:
        UserError: when the network does not fit the data, or cannot be pruned.
    """
    model = build_model(config, data, device)
    optimizer = build_optimizer(model, config.training)
    pruner = None
    if config.prune:
        with blame("pruning"):
            pruner = Pruner(
                model, example_of(data, device), optimizer, replace(config.pruning, seed=config.seed)
            )
    return Learner(model, optimizer, pruner, device)


def build_model(config: ExperimentConfig, data: DataBundle, device: torch.device) -> nn.Module:
    """The network alone, dense and untrained."""
    torch.manual_seed(config.seed)
    with blame("the network"):
        model = build_network(config.network, data.input_shape, data.classes).to(device)
    for module in model.modules():
        if isinstance(module, SpikingNeuron):
            module.compile_steps = config.training.compile
    return model


def build_optimizer(model: nn.Module, training: TrainingConfig) -> Optimizer:
    """The optimizer that the configuration names; the schedule sets its learning rate at every step."""
    rate, decay = training.learning_rate, training.weight_decay
    if training.optimizer == "sgd":
        return SGD(model.parameters(), lr=rate, momentum=training.momentum, weight_decay=decay)
    kind = Adam if training.optimizer == "adam" else AdamW
    return kind(model.parameters(), lr=rate, weight_decay=decay)


def example_of(data: DataBundle, device: torch.device, samples: int = EXAMPLES) -> Tensor:
    """The first training samples, never augmented: [B, C, H, W], of events [T, B, C, H, W]."""
    x, _ = next(iter(data.train.plain().batches(samples)))
    return x.to(device)
