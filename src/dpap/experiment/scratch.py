"""The control that every pruned network has to beat: a small network of the same cost, trained from scratch.

Either a dense network that is narrower by one factor in every layer, or one with the very widths, and the very zeros,
that a pruned run ended with, from new weights.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dpap.anatomy import Wiring, find_wiring
from dpap.data import DataBundle
from dpap.experiment.config import ExperimentConfig
from dpap.experiment.errors import UserError
from dpap.metrics import macs, parameters, weights
from dpap.models import NetworkConfig, build_network, initialise
from dpap.pruning.reports import LayerReport, PruneReport
from dpap.surgery import CompactReport, Silence
from dpap.surgery.storage import load

NARROWEST, STEPS = 1e-3, 24
"""Width factors down to NARROWEST are searched, in so many halvings."""

COUNTS: dict[str, Callable[[nn.Module, Tensor], int]] = {
    "weights": lambda model, one: weights(model).total,
    "parameters": lambda model, one: parameters(model),
    "macs": macs,
}
"""Costs by which a narrower network can be built."""


def narrowed(config: ExperimentConfig, data: DataBundle, one: Tensor) -> NetworkConfig:
    """The network of a configuration, as much narrower in every layer as the target of pruning asks for.

    Widths are whole numbers, so its cost is met to within one step of them; the nearest is taken.

    Args:
        config: with the target.
        data: that it takes.
        one: a sample, to count MACs.

    Raises:
        UserError: where there is no target, or it is a share of something that a width has no direct say in.
    """
    pruning = config.pruning
    if pruning.target is None:
        raise UserError("method scratch needs pruning.target, which says how small the network is; got null")
    if pruning.target_of not in COUNTS:
        raise UserError(
            f"method scratch can build a network by its {', '.join(COUNTS)}; got pruning.target_of "
            f"{pruning.target_of!r}"
        )
    count, dense = COUNTS[pruning.target_of], config.network

    def cost(width: float) -> int:
        network = replace(dense, width=width)
        return count(build_network(network, data.input_shape, data.classes).to(one.device), one)

    goal = (1 - pruning.target) * cost(dense.width)
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
        target_of: the cost that it was made small in.
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
        self._dense = weights(dense)
        self._target_of = target_of
        one = example_inputs[:, :1] if example_inputs.ndim == 5 else example_inputs[:1]
        count = COUNTS.get(target_of, COUNTS["weights"])
        kept = sum(int((~dead).sum()) - dead.numel() for dead in zeros.values()) if target_of == "weights" else 0
        self._achieved = 1 - (count(model, one) + kept) / count(dense, one)

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
                timesteps_alive=1.0,
            )
            for layer in self._dense.layers
        )
        self.epoch += 1
        return PruneReport(
            epoch=self.epoch - 1,
            epsilon={},
            sparsity=1 - weights(self.model).nonzero / self._dense.total,
            timestep_sparsity=0.0,
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
        """The epoch: all else is made anew from the configuration."""
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.epoch = int(state["epoch"])


def reborn(config: ExperimentConfig, dense: nn.Module) -> dict[str, Tensor]:
    """Give a dense network the structure of another run, and new weights; returns the weights that stay zero.

    Raises:
        UserError: where that run is not there, or not finished, or is of another network.
    """
    path = Path(str(config.structure))
    if not path.exists():
        raise UserError(
            f"{path}: the run whose structure is to be trained from scratch is not finished; run it first (in a "
            "comparison name its method before this one)"
        )
    try:
        load(path, dense)
    except ValueError as error:
        raise UserError(f"the structure of {path}: {error}") from error
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
    return zeros
