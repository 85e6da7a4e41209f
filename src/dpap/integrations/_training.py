"""What the callbacks have in common: a pruner through a training run that is saved, resumed, and ended."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dpap.anatomy.pytrees import Inputs
from dpap.integrations._gate import Gate
from dpap.integrations._sizes import Sizes
from dpap.pruning import Pruner, PruneReport, PruningConfig
from dpap.pruning.arguments import as_optimizers
from dpap.pruning.wrappers import renew, wrappers_of
from dpap.surgery import CompactionError
from dpap.surgery.optimizer import check_state


def missing(framework: str, extra: str) -> str:
    """Message of an import that found no framework."""
    # as `dpap.export.requirements` says it, which stands on the same floor
    return (
        f"dpap.integrations.{extra} needs {framework}, which is not installed: "
        f'pip install ".[{extra}]" in a copy of the repository'
    )


def of_network(network: nn.Module, optimizers: Iterable[Any]) -> list[Optimizer]:
    """The optimizers, out of their wrappers, that have any parameter of a network."""
    own = {id(parameter) for parameter in network.parameters()}
    return [
        one
        for one in as_optimizers(list(optimizers))
        if any(id(parameter) in own for group in one.param_groups for parameter in group["params"])
    ]


def check_processes(processes: int, network: nn.Module, config: PruningConfig | None) -> None:
    """Check that what trains a network in several processes follows it where it becomes smaller meanwhile.

    Raises:
        ValueError: where it does not.
    """
    if processes > 1 and config is not None and config.compact == "auto" and not wrappers_of(network):
        raise ValueError(
            f"{processes} processes train this network, and no DistributedDataParallel holds it: what others keep of "
            "its parameters, as DeepSpeed does, has the sizes that they found and cannot be made anew. Train it with "
            'DistributedDataParallel, or give PruningConfig(compact="manual"), and let the dead be removed at the end'
        )


class PrunedTraining:
    """A pruner during one run of a framework.

    Args:
        network: that is pruned.
        example_inputs: that its forward takes.
        optimizers: of its parameters.
        config: of the pruner.
        gate: holds back weights of another structure.
        options: further arguments of `dpap.Pruner`.
    """

    def __init__(
        self,
        network: nn.Module,
        example_inputs: Tensor | Inputs,
        optimizers: Sequence[Optimizer],
        config: PruningConfig | None,
        gate: Gate,
        options: dict[str, Any],
    ) -> None:
        self.network = network
        self.gate = gate
        self._optimizers = list(optimizers)
        self._arguments: dict[str, Any] = {
            "example_inputs": example_inputs,
            "optimizer": self._optimizers or None,
            "config": config,
            **options,
        }
        self._dense = Sizes.of(network)
        self.pruner = Pruner(network, **self._arguments)
        self._stepped = 0
        gate.take_news()

    def step(self, at: int | None = None) -> PruneReport | None:
        """End an epoch of pruning, unless one was ended `at` the same number of training steps."""
        if at is not None:
            if at <= self._stepped:
                return None
            self._stepped = at
        return self.pruner.step()

    def metrics(self) -> dict[str, float]:
        """What is worth logging after each epoch."""
        pruner = self.pruner
        found = {"sparsity": pruner.sparsity}
        if pruner.config.target_of != "weights":
            found["achieved"] = pruner.achieved
        if pruner.config.prunes_timesteps:
            found["timestep_sparsity"] = pruner.timestep_sparsity
        return found

    def state_dict(self) -> dict[str, Any]:
        """The pruner's state, to be saved with the weights."""
        return {"pruner": self.pruner.state_dict(), "stepped": self._stepped}

    def load_state_dict(self, state: dict[str, Any], *, strict: bool = True, rebuild: bool = True) -> None:
        """Go on from a saved state, and let in the weights that were held back for it.

        The optimizers may hold the state that was saved with it already, or any other: what does not fit the network
        any more is dropped.

        Args:
            state: what `state_dict` returned.
            strict: whether weights that were held back must be all of them.
            rebuild: whether a network that has become smaller than the saved one grows again, with another pruner.

        Raises:
            ValueError: where it has, and must not.
        """
        own = [dict(one.state) for one in self._optimizers]
        for one in self._optimizers:
            one.state.clear()
        before = Sizes.of(self.network)
        try:
            if rebuild and self._lacks_units_of(state["pruner"]):
                self.pruner.detach()
                self._grow()
                self.pruner = Pruner(self.network, **self._arguments)
            self.pruner.load_state_dict(state["pruner"])
            self._stepped = int(state["stepped"])
            self.gate.release(strict=strict)
        finally:
            changed = Sizes.of(self.network) != before
            for one, saved in zip(self._optimizers, own, strict=True):
                one.state.update(saved)
                if changed:
                    _drop_misfits(one)

    @classmethod
    def again(
        cls,
        earlier: "PrunedTraining",
        optimizers: Sequence[Optimizer],
        gate: Gate,
        state: dict[str, Any] | None = None,
    ) -> "PrunedTraining":
        """The same network in another run, with other optimizers; goes on from `state`, or where the earlier ended."""
        weights = gate.held or {name: _copied(value) for name, value in gate.root.state_dict().items()}
        state = state or {**earlier.state_dict(), "stepped": 0}
        earlier.detach()
        earlier._grow()
        arguments = dict(earlier._arguments)
        options = {name: arguments.pop(name) for name in list(arguments) if name not in _OWN}
        training = cls(
            earlier.network, arguments["example_inputs"], optimizers, arguments["config"], gate, options
        )
        gate.held = weights
        training.load_state_dict(state)
        return training

    def silence_again(self) -> bool:
        """Silence the dead where weights that were loaded have brought some back; returns whether there were any."""
        if not self.gate.take_news():
            return False
        before = {name: tensor.clone() for name, tensor in self.network.named_parameters()}
        self.pruner.load_state_dict(self.pruner.state_dict())
        return any(not torch.equal(before[name], now) for name, now in self.network.named_parameters())

    def finish(self, *, compact: bool) -> None:
        """Remove the dead if asked to, take every hook out, and warn where the target was not met."""
        if self.gate.held:
            warnings.warn(
                "weights of another size than the network has now were loaded at the end without the state of their "
                "pruner, and left out: the network is the one that training ended with",
                stacklevel=3,
            )
        elif self.silence_again():
            warnings.warn(
                "the weights that were loaded at the end are from before later deaths and came without the state of "
                "their pruner: what died since is silent in them, so that their accuracy is not the one of then",
                stacklevel=3,
            )
        pruner, config = self.pruner, self.pruner.config
        if config.target is not None and config.end_epoch is not None and pruner.epoch < config.end_epoch:
            warnings.warn(
                f"these weights are of epoch {pruner.epoch}, and the target is met at end_epoch = {config.end_epoch}: "
                f"{pruner.achieved:.1%} of the {config.target_of.replace('_', ' ')} are pruned, not "
                f"{config.target:.1%}; stop no earlier, and choose the best epoch from there on, or lower end_epoch",
                stacklevel=3,
            )
        if compact:
            try:
                pruner.compact()
            except CompactionError as error:
                warnings.warn(f"the dead stay in the network as zeros: {error}", stacklevel=3)
        self.detach()

    def detach(self) -> None:
        """Take every hook of the pruner out."""
        self.pruner.detach()

    def _grow(self) -> None:
        """Give the network its dense sizes again."""
        self._dense.restore(self.network)
        renew(wrappers_of(self.network))

    def _lacks_units_of(self, state: dict[str, Any]) -> bool:
        """Whether units of a saved state have left the network since."""
        here = {
            name: set(index.tolist()) for name, index in self.pruner.state_dict()["original_index"].items()
        }
        there = state.get("original_index", {})
        return any(not set(index.tolist()) <= here.get(name, set()) for name, index in there.items())


_OWN = ("example_inputs", "optimizer", "config")


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _drop_misfits(optimizer: Optimizer) -> None:
    try:
        check_state(optimizer)
    except CompactionError:
        optimizer.state.clear()
