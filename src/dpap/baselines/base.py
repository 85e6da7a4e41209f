"""What all baselines share: which weights count, and the interface of a pruner."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from jaxtyping import Bool
from torch import Tensor, nn
from torch.optim import Optimizer

from dpap.anatomy import WeightLayer, Wiring, find_wiring
from dpap.anatomy.layers import by_unit, weight_of
from dpap.anatomy.pytrees import Inputs
from dpap.pruning.arguments import as_inputs, as_optimizers, unwrapped
from dpap.pruning.config import PruningConfig
from dpap.pruning.distributed import Ranks
from dpap.pruning.reports import LayerReport, PruneReport
from dpap.pruning.wrappers import renew, wrappers_around
from dpap.surgery import CompactReport, Masks
from dpap.surgery.changing import changes_tensors
from dpap.surgery.trial import try_removal

Weights = dict[str, Tensor]
"""A tensor for every weight that counts, by weight layer."""


class Baseline(ABC):
    """Prunes single weights while a network learns; `step()` once an epoch, as with `dpap.Pruner`.

    The weights that count are those that count for `dpap.Pruner`, the output layer's included, so that a share of
    them means the same. Biases and normalisation stay. Nothing leaves the network: zeros between alive units do not
    make it smaller.

    Args:
        model: any network whose forward runs on `example_inputs`.
        example_inputs: what its forward takes: a tensor, a tuple of positional or a dict of keyword arguments, on the
            network's device.
        optimizer: the optimizer, or several, of its parameters.
        config: `target`, `start_epoch` and `end_epoch`, as each method uses them; the rest is for `dpap.Pruner`.

    Attributes:
        wiring: what is connected to what; print it.

    Raises:
        ValueError: where nothing can be pruned, there is no target of weights, or neuron-timesteps would be pruned.
    """

    @changes_tensors
    def __init__(
        self,
        model: nn.Module,
        example_inputs: Tensor | Inputs,
        optimizer: Optimizer | Sequence[Optimizer] | None,
        config: PruningConfig,
    ) -> None:
        if not config.target or config.end_epoch is None:
            raise ValueError(
                f"{type(self).__name__} prunes to a target, a share of the weights in (0, 1); got "
                f"{config.target}: set pruning.target, and pruning.end_epoch by which it is met"
            )
        if config.prunes_timesteps:
            raise ValueError(
                f"{type(self).__name__} prunes weights alone; got timesteps={config.timesteps}, "
                f"timestep_target={config.timestep_target}: leave them out, or prune with dpap"
            )
        if config.target_of != "weights":
            raise ValueError(
                f"{type(self).__name__} meets a target of weights alone; got target_of={config.target_of!r}: "
                "what single weights save is no share of it that could be solved for"
            )
        self.model = unwrapped(model)
        self.config = config
        self.epoch = 0
        self._target, self._end = config.target, config.end_epoch
        self._optimizers = as_optimizers(optimizer)
        wrappers = wrappers_around(model, self.model)
        example = Ranks.of(wrappers, self.model).broadcast(as_inputs(example_inputs, self.model))
        self.wiring: Wiring = find_wiring(self.model, example)
        try_removal(self.model, self.wiring, example)  # it finds more layers that cannot be pruned
        renew(wrappers)
        dense = Masks.all_alive(self.wiring, synapses=False, timesteps=False)
        counted = dense.weights(self.wiring) if dense.units else {}
        if not counted:
            raise ValueError(f"nothing in this network can be pruned:\n{self.wiring}")
        recurrent = [name for name in counted if self.wiring.layers[name].kind.name == "recurrent"]
        if recurrent:
            raise ValueError(
                f"{type(self).__name__} prunes the weights of Linear and convolution layers; {', '.join(recurrent)} "
                "are parts of a recurrent module: prune them with dpap.Pruner"
            )
        self.weights: Weights = {name: weight_of(self.wiring.layers[name].module) for name in counted}

    @property
    def sparsity(self) -> float:
        """Share of the prunable weights that is zero."""
        alive = sum(int(alive.sum()) for alive in self.alive_weights().values())
        return 1 - alive / sum(weight.numel() for weight in self.weights.values())

    @property
    def timestep_sparsity(self) -> float:
        """0.0: timesteps are not pruned."""
        return 0.0

    def survival(self) -> dict[str, list[float | None]]:
        """Nothing: units have no survival here."""
        return {}

    @changes_tensors
    def step(self) -> PruneReport:
        """End an epoch."""
        epoch, before = self.epoch, self._units_alive()
        due = self._end_epoch()
        self.epoch += 1
        return PruneReport(
            epoch=epoch,
            epsilon={},
            sparsity=self.sparsity,
            timestep_sparsity=0.0,
            target_of="weights",
            achieved=self.sparsity,
            target=due,
            layers=tuple(self._layer_reports(before)),
            compacted=None,
        )

    def compact(self) -> CompactReport:
        """Removes nothing."""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return CompactReport(parameters, parameters, 0.0, 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, as plain tensors and numbers."""
        return {
            "epoch": self.epoch,
            "config": self.config.as_dict(),
            **{
                kind: {name: value.clone() for name, value in own.items()}
                for kind, own in self._state().items()
            },
        }

    @changes_tensors
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state. Load the network's and the optimizer's state after this.

        Raises:
            ValueError: where the state is of another network or method.
        """
        for kind, own in self._state().items():
            expected, given = (
                {name: tuple(value.shape) for name, value in values.items()}
                for values in (own, state.get(kind, {}))
            )
            if given != expected:
                raise ValueError(
                    f"this state holds {kind} of {given}; {type(self).__name__} of this network has {expected}: "
                    "load it with the method and the network that it was saved with"
                )
        for kind, own in self._state().items():
            for name, value in own.items():
                value.copy_(state[kind][name])
        self.epoch = int(state["epoch"])
        self._write_weights()

    @abstractmethod
    def alive_weights(self) -> dict[str, Bool[Tensor, "..."]]:
        """Which weights are alive, in each weight's shape."""

    @abstractmethod
    def detach(self) -> None:
        """Remove every hook from the network and its optimizers; weights keep their values."""

    @abstractmethod
    def _end_epoch(self) -> float:
        """Prune after an epoch; returns the share that is due to be dead."""

    @abstractmethod
    def _state(self) -> dict[str, Weights]:
        """The method's own tensors, not copies, by kind."""

    @abstractmethod
    def _write_weights(self) -> None:
        """Set the network's weights by the state."""

    def _units_alive(self) -> dict[str, int]:
        """Units with any alive weight."""
        return {
            name: int(_units_with(alive, self.wiring.layers[name]).sum())
            for name, alive in self.alive_weights().items()
        }

    def _layer_reports(self, before: dict[str, int]) -> list[LayerReport]:
        units = self._units_alive()
        return [
            LayerReport(
                name=name,
                kind=self.wiring.layers[name].kind.name,
                units=self.wiring.layers[name].units,
                alive=units[name],
                died=before[name] - units[name],
                weights=alive.numel(),
                weights_alive=int(alive.sum()),
                timesteps_alive=1.0,
            )
            for name, alive in self.alive_weights().items()
        ]


def _units_with(alive: Bool[Tensor, "..."], layer: WeightLayer) -> Bool[Tensor, "_"]:
    """Which units have an alive weight; the first axis of a weight counts through all groups, the second within one."""
    blocks = alive.reshape(layer.groups, len(alive) // layer.groups, alive.shape[1], -1)
    return by_unit(blocks.any(3).any(2 - layer.kind.unit_axis).flatten(), layer.module).any(1)
