"""The life cycle of a network that is pruned while it learns: observe, step, compact."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dpap.anatomy import Wiring, find_wiring
from dpap.anatomy.hooks import Around
from dpap.anatomy.operations import check_countable
from dpap.anatomy.pytrees import Inputs
from dpap.pruning.arguments import as_copies, as_inputs, as_optimizers, unwrapped
from dpap.pruning.budget import TOLERANCE, dead_timesteps
from dpap.pruning.config import PruningConfig
from dpap.pruning.costs import OBSERVED, CostLedger
from dpap.pruning.observation import Observation
from dpap.pruning.reports import LayerReport, PruneReport
from dpap.pruning.state import PruningState
from dpap.pruning.versions import VERSION, upgraded
from dpap.surgery import CompactionError, CompactReport, Silence
from dpap.surgery.compact import remove_dead, what_remains
from dpap.surgery.compiled import recompile
from dpap.surgery.copies import Copies
from dpap.surgery.slicing import Kept, keep_only
from dpap.surgery.trial import try_removal

STEP = 3
"""Multiplications of a training step, in forwards: one forwards, twice as many backwards."""
REMOVAL = 4
"""Cost of a removal, in forwards: it is checked by two of the example inputs in double precision."""


class Pruner:
    """Prunes a network while it learns, in the training loop of its user.

    The activity of every training forward is observed. `step()`, once an epoch, turns it into importance, moves
    survival, and silences what falls below zero; `compact()` removes the silent units physically. Everything
    works on the network in place, and references to its parameters stay valid.

    Args:
        model: any network whose forward runs on `example_inputs`, also as `torch.compile` and `DataParallel` return
            it, whose results stay in use.
        example_inputs: what its forward takes: a tensor, a tuple of positional or a dict of keyword arguments, on the
            network's device. A small batch of real data is best, for it also serves to check every removal.
        optimizer: the optimizer, or several, of its parameters.
        config: what to prune and how much.
        copies: networks of the same structure that follow it, such as its `torch.optim.swa_utils.AveragedModel` or
            a deep copy: what dies in it is silenced there, and what leaves it leaves there.

    Attributes:
        wiring: what is connected to what, what can be pruned, and why the rest cannot; print it.

    Example:
        >>> import torch, dpap
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> x, y = torch.rand(64, 8), torch.randint(2, (64,))
        >>> config = dpap.PruningConfig(target=0.75, end_epoch=2)
        >>> pruner = dpap.Pruner(model, x[:4], optimizer, config)
        >>> for epoch in range(2):
        ...     for batch in range(4):
        ...         optimizer.zero_grad()
        ...         nn.functional.cross_entropy(model(x), y).backward()
        ...         optimizer.step()
        ...     report = pruner.step()
        >>> f"{report.sparsity:.0%} of the weights are dead"
        '75% of the weights are dead'
        >>> alive = [survival is not None for survival in pruner.survival()["0"]]
        >>> report = pruner.compact()
        >>> model[0].out_features == sum(alive) < 32
        True
        >>> pruner.detach()
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Tensor | Inputs,
        optimizer: Optimizer | Sequence[Optimizer] | None = None,
        config: PruningConfig | None = None,
        copies: nn.Module | Sequence[nn.Module] = (),
    ) -> None:
        self.model = unwrapped(model)
        self.config = config or PruningConfig()
        self.epoch = 0
        self._example = as_inputs(example_inputs, self.model)
        self._optimizers = as_optimizers(optimizer)
        followers = as_copies(copies, self.model)
        self.wiring: Wiring = find_wiring(self.model, self._example)
        try_removal(self.model, self.wiring, self._example)
        self._copies = Copies(followers, self.wiring, self._optimizers)
        self._state = PruningState(self.wiring, self.config)
        if not self._state.masks.units:
            raise ValueError(f"nothing in this network can be pruned:\n{self.wiring}")
        counts_operations = self.config.target is not None and self.config.target_of in OBSERVED
        if counts_operations:
            check_countable(self.wiring)
        self._ledger = CostLedger.of_dense(self.model, self.wiring, self._state.masks, self.config.round_to)
        if self.config.target_of not in (*OBSERVED, "weights"):
            self._check_reach()
        self._initial_weights = {
            name: weights for name, (_, weights) in self._state.masks.weights(self.wiring).items()
        }
        self._initial_units = {name: layer.units for name, layer in self.wiring.layers.items()}
        self._original_index = {name: torch.arange(units) for name, units in self._initial_units.items()}
        self._silence = Silence(self.model, self.wiring, self._optimizers)
        self._forwards = 0
        self._forward_handle = Around(self.model, "before", self._count_forward)
        self._observation = Observation(
            self.model,
            self.wiring,
            self._state,
            self.config,
            self._optimizers,
            counts_operations,
            lambda: self._may_die,
        )
        self._steps, self._steps_per_epoch = 0, 0
        self._alive_before = self._units_alive()
        self._epsilon: dict[str, float] = {}
        self._step_handle = (
            self._optimizers[-1].register_step_post_hook(self._after_step) if self._optimizers else None
        )
        recompile()

    @property
    def sparsity(self) -> float:
        """Share of the prunable weights that is dead."""
        return self._ledger.share("weights", self._state.masks)

    @property
    def achieved(self) -> float:
        """Share that is pruned of what `PruningConfig.target_of` names; 0.0 where nothing of it was observed yet."""
        return self._ledger.share(self.config.target_of, self._state.masks)

    @property
    def timestep_sparsity(self) -> float:
        """Share of the alive neurons' timesteps that is dead; 0.0 where timesteps do not die."""
        return dead_timesteps(self._state.masks)

    def survival(self) -> dict[str, list[float | None]]:
        """Survival F of every unit of the dense network, by layer; None once it is dead."""
        by_layer: dict[str, list[float | None]] = {}
        for name, layer_survival in self._state.survival.items():
            values: list[float | None] = [None] * self._initial_units[name]
            mask = self._state.masks.units[name].tolist()
            for index, value, alive in zip(
                self._original_index[name].tolist(), layer_survival.units.tolist(), mask, strict=True
            ):
                values[index] = value if alive else None
            by_layer[name] = values
        return by_layer

    @torch.no_grad()
    def step(self) -> PruneReport:
        """End an epoch: survival is updated by what was observed, and what falls below zero dies.

        Raises:
            RuntimeError: where what the criterion observes, training forwards or gradients, was not seen since the last
                step.
        """
        epoch, config = self.epoch, self.config
        self._observation.end()
        if self._may_die and self._state.observes and not self._state.anything_observed:
            raise RuntimeError(self._observation.missing())
        self._state.anything_observed = False
        self._update(epoch + 1.0)
        epsilon, self._epsilon = self._epsilon, {}
        before = self._alive_before
        compacted = self._compact_if_worth_it() if config.compact == "auto" else None
        self._observation.begin_epoch()
        self._steps_per_epoch, self._steps = self._steps, 0
        self._forwards = 0
        self._alive_before = self._units_alive()
        self.epoch += 1
        return PruneReport(
            epoch=epoch,
            epsilon=epsilon,
            sparsity=self.sparsity,
            timestep_sparsity=self.timestep_sparsity,
            target_of=config.target_of,
            achieved=self.achieved,
            target=config.due(epoch + 1.0),
            layers=tuple(self._layer_reports(before)),
            compacted=compacted,
        )

    @torch.no_grad()
    def compact(self) -> CompactReport:
        """Remove dead units physically: from parameters, buffers and optimizer state, in place.

        Raises:
            CompactionError: where the network would not compute the same without them; nothing is changed then.
        """
        kept, report = remove_dead(
            self.model,
            self.wiring,
            self._state.masks,
            self._optimizers,
            self._example,
            self.config.round_to,
        )
        if not kept.everything:
            self._copies.keep_only(kept)
            self._renumber(kept)
        return report

    def detach(self) -> None:
        """Take every observing hook out of the network and its optimizers.

        Silenced timesteps stay silent, for they belong to the network; other dead that were not removed stay zero
        until something changes them.
        """
        self._observation.remove()
        for handle in (self._forward_handle, self._step_handle):
            if handle is not None:
                handle.remove()
        self._silence.remove()
        recompile()

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, as plain tensors and numbers; also the structure of a compacted network."""
        return {
            "version": VERSION,
            "epoch": self.epoch,
            "config": self.config.as_dict(),
            "initial_units": dict(self._initial_units),
            "original_index": {name: index.clone() for name, index in self._original_index.items()},
            "steps": self._steps,
            "steps_per_epoch": self._steps_per_epoch,
            **self._state.state_dict(),
            "activity": self._ledger.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state: a pruner of the dense network shrinks it to the saved structure.

        Load the network's and the optimizer's state after this.

        Raises:
            ValueError: where the state is of another network, of a network smaller than this one has become, of a
                later version of dpap, or no state of a pruner.

        Example:
            >>> import torch, dpap
            >>> from torch import nn
            >>> model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
            >>> config = dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=1, synapses=False)
            >>> pruner = dpap.Pruner(model, torch.rand(4, 8), config=config)
            >>> model(torch.rand(64, 8)).square().sum().backward()  # training, of which gradients are observed
            >>> report = pruner.step()
            >>> report = pruner.compact()
            >>> dense = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
            >>> dpap.Pruner(dense, torch.rand(4, 8), config=config).load_state_dict(pruner.state_dict())
            >>> dense.load_state_dict(model.state_dict())
            <All keys matched successfully>
        """
        state = upgraded(state)
        if state["initial_units"] != self._initial_units:
            raise ValueError(
                f"this state is of a network with units {state['initial_units']}; this network has "
                f"{self._initial_units}: build the network that the state was saved with"
            )
        leaving = {}
        for name, stored in state["original_index"].items():
            place = {unit: index for index, unit in enumerate(self._original_index[name].tolist())}
            missing = [unit for unit in stored.tolist() if unit not in place]
            if missing:
                raise ValueError(
                    f"this state holds {len(missing)} units of {name} that were removed from this network: load it "
                    "into a pruner of the freshly built network"
                )
            leaving[name] = torch.ones(self.wiring.layers[name].units, dtype=torch.bool)
            leaving[name][[place[unit] for unit in stored.tolist()]] = False
        kept = what_remains(self.wiring, leaving)
        if not kept.everything:
            keep_only(self.model, self.wiring, kept, self._optimizers)
            self._copies.keep_only(kept)
            self._renumber(kept)
        self.epoch = int(state["epoch"])
        self._steps, self._steps_per_epoch = state.get("steps", 0), state.get("steps_per_epoch", 0)
        self._state.load_state_dict(state)
        self._ledger.load_state_dict(state["activity"])
        self._impose()
        self._alive_before = self._units_alive()

    _refused = False
    _reach_checked = False

    @property
    def _may_die(self) -> bool:
        """Whether anything may die at the end of this epoch or later."""
        return self.config.end_epoch is None or self.epoch < self.config.end_epoch

    @torch.no_grad()
    def _after_step(self, *step: Any) -> None:
        """Let something die within the epoch, where its share of the optimizer's steps has passed."""
        self._steps += 1
        total, deaths = self._steps_per_epoch, self.config.deaths_per_epoch
        if self.config.target is None or deaths == 1 or not 0 < self._steps < total:
            return
        done = self._steps * deaths // total
        if done > (self._steps - 1) * deaths // total:
            self._observation.end()
            if self._state.updatable:
                self._update(self.epoch + done / deaths)

    def _update(self, progress: float) -> None:
        """Move survival, and silence what falls below zero; `progress` epochs have been trained."""
        config = self.config
        counted = self._observation.take_operations()
        if counted is not None:
            self._ledger.update(*counted, self._state.masks)
        over = config.end_epoch is not None and progress > config.end_epoch
        if progress > config.start_epoch and not over:
            if counted is not None and not self._reach_checked:
                self._check_reach()
            # within an epoch the last of them may find its share dead already, and use none
            self._epsilon |= self._state.update(self.epoch, progress, self._ledger)
            self._impose()
        self._state.begin_interval()

    def _count_forward(self, *forward: Any) -> None:
        self._forwards += self.model.training and torch.is_grad_enabled()

    def _units_alive(self) -> dict[str, int]:
        return {name: int(alive.sum()) for name, alive in self._state.masks.units.items()}

    def _check_reach(self) -> None:
        """Warn where the target is out of reach even with every layer at its floor."""
        self._reach_checked = True
        config = self.config
        if config.target is None:
            return
        most = self._ledger.reachable(config.target_of, self._state.masks, self._state.floors)
        if config.target > most + TOLERANCE:
            warnings.warn(
                f"the target, {config.target:.1%} of the {config.target_of.replace('_', ' ')}, is out of reach: at "
                f"most {most:.1%} can be pruned with min_units={config.min_units} and "
                f"min_share={config.min_share:g} of every layer; lower these or the target, or "
                "print the pruner's wiring to see which layers keep their units",
                stacklevel=3,
            )

    def _impose(self) -> None:
        """Silence the dead, here and in the copies."""
        self._silence.impose(self._state.masks)
        self._copies.impose(self._state.masks)

    def _compact_if_worth_it(self) -> CompactReport | None:
        """Compact where another epoch like this one would save more multiplications than the removal takes."""
        kept = what_remains(self.wiring, self._state.masks.removable(self.wiring, self.config.round_to))
        now, left = self.wiring.macs(), self.wiring.macs(kept.units, kept.features)
        if self._refused or STEP * self._forwards * (now - left) <= REMOVAL * now:
            return None
        try:
            return self.compact()
        except CompactionError as error:
            self._refused = True
            warnings.warn(f"the dead stay in the network as zeros: {error}", stacklevel=3)
            return None

    def _renumber(self, kept: Kept) -> None:
        """Let everything that counts units and features follow a removal."""
        self.wiring.keep(kept.units, kept.features)
        self._observation.rewire()
        for name, kept_units in kept.units.items():
            self._original_index[name] = self._original_index[name][kept_units]
        self._state.keep(kept)
        self._ledger.keep(kept)
        self._impose()

    def _layer_reports(self, before: dict[str, int]) -> list[LayerReport]:
        reports = []
        for name, (weights_alive, _) in self._state.masks.weights(self.wiring).items():
            layer = self.wiring.layers[name]
            units = self._state.masks.units.get(name)
            alive = layer.units if units is None else int(units.sum())
            times = self._state.masks.timesteps.get(name)
            reports.append(
                LayerReport(
                    name=name,
                    kind=layer.kind.name,
                    units=self._initial_units[name],
                    alive=alive,
                    died=before.get(name, alive) - alive,
                    weights=self._initial_weights[name],
                    weights_alive=weights_alive,
                    timesteps_alive=1.0
                    if times is None or units is None or not units.any()
                    else float(times[:, units].float().mean()),
                )
            )
        return reports
