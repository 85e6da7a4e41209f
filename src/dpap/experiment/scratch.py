"""The control that every pruned network has to beat: a small network of the same cost, trained from scratch.

Either a dense network that is narrower by one factor in every layer, or one with the very widths, and the very zeros,
that a pruned run ended with, from new weights.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dpap.anatomy import Wiring, find_wiring
from dpap.data import DataBundle
from dpap.experiment.config import ExperimentConfig
from dpap.experiment.errors import UserError, blame
from dpap.metrics import macs, parameters, weights
from dpap.models import NetworkConfig, build_network, initialise
from dpap.pruning.config import PruningConfig
from dpap.pruning.reports import LayerReport, PruneReport
from dpap.surgery import CompactReport, Silence
from dpap.surgery.storage import load
from dpap.surgery.timesteps import BUFFER

NARROWEST, STEPS = 1e-3, 24
"""Width factors down to NARROWEST are searched, in so many halvings."""

COUNTS: dict[str, Callable[[nn.Module, Tensor], int]] = {
    "weights": lambda model, one: weights(model).total,
    "parameters": lambda model, one: parameters(model),
    "macs": macs,
}
"""Costs by which a narrower network can be built."""


def check_target(pruning: PruningConfig) -> None:
    """Raises ValueError where no width follows from the target: there is none, or it depends on activity."""
    if pruning.target is None:
        raise ValueError(
            "method scratch needs pruning.target, the share by which the network is smaller; got null"
        )
    if pruning.target_of not in COUNTS:
        raise ValueError(
            f"method scratch builds a network by its {', '.join(COUNTS)}; got pruning.target_of "
            f"{pruning.target_of!r}, which depends on activity or on the machine: choose one of these, or leave "
            "scratch out"
        )


def narrowed(config: ExperimentConfig, data: DataBundle, one: Tensor) -> NetworkConfig:
    """The network of a configuration, as much narrower in every layer as the target of pruning asks for.

    Widths are whole numbers, so its cost is met to within one step of them; the nearest is taken.

    Args:
        config: with the target.
        data: that it takes.
        one: a sample, to count MACs.

    Raises:
        ValueError: as `check_target`.
    """
    check_target(config.pruning)
    target, count, dense = config.pruning.target or 0.0, COUNTS[config.pruning.target_of], config.network

    def cost(width: float) -> int:
        network = replace(dense, width=width)
        return count(build_network(network, data.input_shape, data.classes).to(one.device), one)

    goal = (1 - target) * cost(dense.width)
    low, high = NARROWEST * dense.width, dense.width
    below, above = cost(low), cost(high)
    for _ in range(STEPS):
        middle = (low + high) / 2
        between = cost(middle)
        if between <= goal:
            low, below = middle, between
        else:
            high, above = middle, between
    return replace(dense, width=low if goal - below <= above - goal else high)


class Scratch:
    """A small network that is trained from scratch, with the interface of a pruner: nothing more dies in it.

    Args:
        model: the network, new weights in it.
        example_inputs: a small batch of what it takes.
        optimizer: of its parameters.
        dense: the network that it is smaller than.
        zeros: weights that stay zero, True where one does, by their names.
        target_of: what the target is a share of; one that activity decides cannot be counted, the weights are then.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Tensor,
        optimizer: Optimizer,
        dense: nn.Module,
        zeros: dict[str, Tensor],
        target_of: str,
    ) -> None:
        self.model = model
        self.wiring: Wiring = find_wiring(model, (example_inputs,))
        self.epoch = 0
        self._silence = Silence(model, self.wiring, (optimizer,))
        own = dict(model.named_parameters())
        self._silence.hold([(own[name], dead) for name, dead in zeros.items()])
        self._zeros = zeros
        timesteps = _alive_timesteps(model, self.wiring)
        self._timesteps = {name: _share([alive]) for name, alive in timesteps.items()}
        self._timestep_sparsity = 1 - _share(timesteps.values())
        self._dense = weights(dense)
        self._target_of = target_of if target_of in COUNTS else "weights"
        one = example_inputs[:, :1] if example_inputs.ndim == 5 else example_inputs[:1]
        count = COUNTS[self._target_of]
        zero = sum(int(dead.sum()) for dead in zeros.values()) if self._target_of == "weights" else 0
        self._achieved = 1 - (count(model, one) - zero) / count(dense, one)

    def step(self) -> PruneReport:
        """End an epoch."""
        own = {layer.name: layer for layer in weights(self.model).layers}
        layers = tuple(
            LayerReport(
                name=layer.name,
                kind=self.wiring.layers[layer.name].kind.name if layer.name in self.wiring.layers else "fc",
                units=layer.units,
                alive=own[layer.name].units,
                died=0,
                weights=layer.weights,
                weights_alive=own[layer.name].nonzero,
                timesteps_alive=self._timesteps.get(layer.name, 1.0),
            )
            for layer in self._dense.layers
        )
        self.epoch += 1
        return PruneReport(
            epoch=self.epoch - 1,
            epsilon={},
            sparsity=1 - weights(self.model).nonzero / self._dense.total,
            timestep_sparsity=self._timestep_sparsity,
            target_of=self._target_of,
            achieved=self._achieved,
            target=None,
            layers=layers,
            compacted=None,
        )

    def survival(self) -> dict[str, list[float | None]]:
        """Nothing: units have no survival here."""
        return {}

    def compact(self) -> CompactReport:
        """Removes nothing."""
        count = parameters(self.model)
        return CompactReport(count, count, 0.0, 0.0)

    def detach(self) -> None:
        """Remove every hook."""
        self._silence.remove()

    def state_dict(self) -> dict[str, Any]:
        """The epoch, and the structure, to recognise it: it is made anew from the configuration."""
        return {"epoch": self.epoch, "shapes": self._shapes(), "zeros": dict(self._zeros)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            UserError: where that is of another structure.
        """
        zeros = {name: dead.cpu() for name, dead in self._zeros.items()}
        before = state["zeros"]
        if (
            state["shapes"] != self._shapes()
            or before.keys() != zeros.keys()
            or not all(torch.equal(before[name], dead) for name, dead in zeros.items())
        ):
            raise UserError(
                "the network that is trained from scratch has other widths or zeros than in the checkpoint; put the "
                "model file that `structure` names back as it was, or start the run again (--overwrite)"
            )
        self.epoch = int(state["epoch"])

    def _shapes(self) -> dict[str, list[int]]:
        return {name: list(parameter.shape) for name, parameter in self.model.named_parameters()}


def _alive_timesteps(model: nn.Module, wiring: Wiring) -> dict[str, Tensor]:
    """Which timesteps of the neurons behind a weight layer are alive, [T, unit], where the structure says so."""
    found = {}
    for name, layer in wiring.layers.items():
        neuron = wiring.neuron_of(layer)
        if neuron is None or neuron.incoming:
            continue
        alive = model.get_submodule(neuron.site.module)._buffers.get(BUFFER)
        if alive is not None:
            found[name] = alive[:, (neuron.feeds[name] >= 0).to(alive.device)]
    return found


def _share(masks: Iterable[Tensor]) -> float:
    """Share of the entries that are True; 1.0 of none."""
    counts = [(int(mask.sum()), mask.numel()) for mask in masks]
    return sum(alive for alive, _ in counts) / sum(size for _, size in counts) if counts else 1.0


def restructured(config: ExperimentConfig, dense: nn.Module) -> dict[str, Tensor]:
    """Give a dense network the structure of another run, and new weights; returns the weights that stay zero.

    Weights are as large as a network of so few inputs starts with: those of a unit of which only some inputs are alive
    are drawn for these, so that its neurons fire (U. Evci et al., AAAI 2022, arXiv 2010.03533). Dead timesteps stay
    dead too.

    Raises:
        UserError: where that run is not there, or not finished, or is of another network.
    """
    path = Path(str(config.structure))
    with blame("structure"):
        there = path.is_file()
    if not there:
        raise UserError(
            f"structure: expected the model file of a finished run; there is none at {path}: finish that run first, "
            "or name the place that it was moved to"
        )
    try:
        load(path, dense)
    except ValueError as error:
        raise UserError(f"structure: {error}") from error
    names = {f"{layer.name}.weight" for layer in weights(dense).layers}
    zeros = {
        name: value.detach() == 0
        for name, value in dense.named_parameters()
        if name in names and bool((value == 0).any())
    }
    for parameter in dense.parameters():
        parameter.grad = None
    torch.manual_seed(config.seed)
    initialise(dense, config.network)
    own = dict(dense.named_parameters())
    with torch.no_grad():
        for name, dead in zeros.items():
            alive = (~dead).flatten(1).double().mean(1).clamp(min=1 / dead[0].numel())
            own[name].div_(alive.sqrt().to(own[name]).view(-1, *[1] * (dead.ndim - 1)))
    return zeros
