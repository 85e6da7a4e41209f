"""Network, optimizer and pruner, built from a configuration or restored from a checkpoint."""

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, AdamW, Optimizer

from dpap.anatomy import Wiring
from dpap.baselines import GradientRewiring, GradualMagnitude
from dpap.data import DataBundle
from dpap.experiment.config import ExperimentConfig, TrainingConfig
from dpap.experiment.errors import blame
from dpap.experiment.machine import enough_memory
from dpap.experiment.scratch import Scratch, narrowed, restructured
from dpap.models import NetworkConfig, build_network
from dpap.pruning.distributed import Ranks
from dpap.pruning.pruner import Pruner
from dpap.pruning.reports import PruneReport
from dpap.spiking import SpikingNeuron
from dpap.surgery import CompactReport

EXAMPLES = 16  # samples on which the wiring is found and every removal is checked


class SampleSizes(Protocol):
    """What a network is built for: `DataBundle`, or what is known without reading it."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a sample, at one time where there are events."""

    @property
    def classes(self) -> int:
        """Number of classes."""


@runtime_checkable
class PrunerLike(Protocol):
    """What an experiment needs of a pruner: `dpap.Pruner`, or a baseline."""

    wiring: Wiring

    def step(self) -> PruneReport:
        """End an epoch."""

    def survival(self) -> dict[str, list[float | None]]:
        """Survival of every unit of the dense network, by weight layer; None once it is dead."""

    def compact(self) -> CompactReport:
        """Remove the dead that can be removed."""

    def detach(self) -> None:
        """Remove every hook."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""


@dataclass
class Learner:
    """A network and what trains and prunes it.

    Attributes:
        model: the network.
        optimizer: of its parameters.
        pruner: None for a dense twin.
        device: where they are.
        wrapped: what averages the network's gradients over several processes, if there are.
    """

    model: nn.Module
    optimizer: Optimizer
    pruner: PrunerLike | None
    device: torch.device
    wrapped: DistributedDataParallel | None = None

    @property
    def trained(self) -> nn.Module:
        """What runs in training: the network, or what averages its gradients over several processes."""
        return self.model if self.wrapped is None else self.wrapped

    def share(self, ranks: Ranks) -> None:
        """Train the network in several processes together."""
        if ranks.many:
            devices = None if self.device.type == "cpu" else [self.device]
            self.wrapped = DistributedDataParallel(self.model, device_ids=devices)

    def take_buffers(self, ranks: Ranks) -> None:
        """Give every process the first one's buffers, such as running means, as the next training forward would."""
        for buffer in self.model.buffers():
            ranks.take_first("share buffers", buffer)

    def state(self) -> dict[str, Any]:
        """Tensors and plain values that `restore` takes."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "pruner": self.pruner.state_dict() if self.pruner is not None else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take on a state of `state()`; this learner must be freshly built.

        The pruner comes first: it shrinks network and optimizer to the shapes of their states.
        """
        if self.pruner is not None:
            self.pruner.load_state_dict(state["pruner"])
        self.model.load_state_dict(state["model"])
        _check_optimizer(self.optimizer, state["optimizer"])
        self.optimizer.load_state_dict(state["optimizer"])


def build_learner(config: ExperimentConfig, data: DataBundle, device: torch.device) -> Learner:
    """An untrained learner; the same seed gives the same weights.

    Raises:
        UserError: when the network does not fit the data or the memory, or cannot be pruned.
    """
    with enough_memory("the network and its pruner", grows_with(config.network, running=True)):
        return _build_learner(config, data, device)


def _build_learner(config: ExperimentConfig, data: DataBundle, device: torch.device) -> Learner:
    if config.prune and config.method == "scratch":
        return _small_from_scratch(config, data, device)
    model = build_model(config, data, device)
    optimizer = build_optimizer(model, config.training)
    pruner = None
    if config.prune:
        with blame("pruning"):
            pruner = _build_pruner(config, model, example_of(data, device), optimizer)
    return Learner(model, optimizer, pruner, device)


def _small_from_scratch(config: ExperimentConfig, data: DataBundle, device: torch.device) -> Learner:
    dense, example = build_model(config, data, device), example_of(data, device)
    with blame("pruning"):
        if config.structure is None:
            network = narrowed(config, data, example_of(data, device, samples=1))
            model, zeros = build_model(replace(config, network=network), data, device), {}
        else:
            model = build_model(config, data, device)
            zeros = restructured(config, model)
        optimizer = build_optimizer(model, config.training)
        pruner = Scratch(model, example, optimizer, dense, zeros, config.pruning.target_of)
    return Learner(model, optimizer, pruner, device)


def _build_pruner(
    config: ExperimentConfig, model: nn.Module, example: Tensor, optimizer: Optimizer
) -> PrunerLike:
    """The method that the configuration names."""
    if config.method == "gradual_magnitude":
        return GradualMagnitude(model, example, optimizer, config.pruning)
    if config.method == "gradient_rewiring":
        return GradientRewiring(model, example, optimizer, config.pruning, config.rewiring)
    return Pruner(model, example, optimizer, replace(config.pruning, seed=config.seed))


def build_model(config: ExperimentConfig, data: SampleSizes, device: torch.device) -> nn.Module:
    """The network alone, dense and untrained.

    Raises:
        UserError: when it does not fit the data or the memory.
    """
    torch.manual_seed(config.seed)
    with blame("the network"), enough_memory("the network", grows_with(config.network)):
        model = build_network(config.network, data.input_shape, data.classes).to(device)
    for module in model.modules():
        if isinstance(module, SpikingNeuron):
            module.compile_steps = config.training.compile
    return model


def grows_with(network: NetworkConfig, *, running: bool = False) -> str:
    """The settings that the memory of a network, or of one that is running, grows with, and what they are."""
    steps = f"network.timesteps (now {network.timesteps}), " if running and network.spiking else ""
    return f"{steps}network.width (now {network.width:g}) or the numbers of network.layers (now {network.layers})"


def apply_memory_format(model: nn.Module, training: TrainingConfig) -> None:
    """Put the weights into the configured memory format, which also decides how sums over them are rounded."""
    if training.channels_last:
        for parameter in model.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def build_optimizer(model: nn.Module, training: TrainingConfig) -> Optimizer:
    """The optimizer that the configuration names; the schedule sets its learning rate at every step."""
    rate, decay = training.learning_rate, training.weight_decay
    if training.optimizer == "sgd":
        return SGD(model.parameters(), lr=rate, momentum=training.momentum, weight_decay=decay)
    kind = Adam if training.optimizer == "adam" else AdamW
    return kind(model.parameters(), lr=rate, weight_decay=decay)


def _check_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Check what `load_state_dict` does not, and the next step would not survive.

    Raises:
        ValueError: where settings differ, or a tensor does not fit its parameter.
    """
    groups = optimizer.state_dict()["param_groups"]
    for own, given in zip(groups, state["param_groups"], strict=True):
        for key in (own.keys() & given.keys()) - {"lr"}:
            if own[key] != given[key]:
                raise ValueError(f"{key} of the optimizer is {own[key]!r}; got {given[key]!r:.60}")
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    names = {frozenset(values) for values in state["state"].values()}
    if len(names) > 1:
        raise ValueError(f"the optimizer remembers the same of each parameter; got {names}")
    for number, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameters[number].shape:
                raise ValueError(
                    f"{name} of parameter {number} must have shape {tuple(parameters[number].shape)}; "
                    f"got {tuple(value.shape)}"
                )


def example_of(data: DataBundle, device: torch.device, samples: int = EXAMPLES) -> Tensor:
    """The first training samples, never augmented: [B, C, H, W], of events [T, B, C, H, W]."""
    x, _ = next(iter(data.train.plain().batches(samples)))
    return x.to(device)
