"""The life cycle of a network that is pruned while it learns: observe, step, compact."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dpap.anatomy import Wiring, find_wiring
from dpap.anatomy.observing.hooks import Around, Hook
from dpap.anatomy.pytrees import Inputs, Outputs, examples_of
from dpap.pruning.arguments import (
    AnyOptimizer,
    as_copies,
    as_inputs,
    as_outputs,
    check_call,
    check_trained,
    known_optimizers,
    unwrapped,
)
from dpap.pruning.budget import dead_timesteps
from dpap.pruning.checks import check_observable, check_reach, give_up_what_is_not_silent
from dpap.pruning.config import PruningConfig
from dpap.pruning.costs import MEASURED, OBSERVED, CostLedger
from dpap.pruning.distributed import DIFFERENT, Ranks, check_networks, check_pruners
from dpap.pruning.layer_times import layer_times
from dpap.pruning.observation import Observation
from dpap.pruning.removal import check_own_tensors, saves_time
from dpap.pruning.reports import PruneReport, layer_reports
from dpap.pruning.resume import Structure, match_timesteps, slice_all, take_sizes
from dpap.pruning.state import NotFinite, PruningState
from dpap.pruning.versions import VERSION, check_criterion, upgraded
from dpap.pruning.wrappers import renew, wrappers_around, wrappers_of
from dpap.surgery import CompactionError, CompactReport, Silence
from dpap.surgery.changing import changes_tensors
from dpap.surgery.compact import remove_dead
from dpap.surgery.compiled import recompile
from dpap.surgery.copies import Copies
from dpap.surgery.pruned import check_unpruned, mark, remove_idle_hooks, unmark
from dpap.surgery.slicing import Kept
from dpap.surgery.trial import try_removal

_CONNECTION = frozenset(("_silence", "_observation", "_handles", "_mark"))
"""Attributes that hold hooks, or stand for them."""


class Pruner:
    """Prunes a network while it learns, in the training loop of its user.

    The activity of every training forward is observed. `step()`, once an epoch, turns it into importance, moves
    survival, and silences what falls below zero; `compact()` removes the silent units physically. Everything
    works on the network in place, and references to its parameters stay valid.

    Where several processes train it together (docs/distributed.md), every rank makes one, with the process group
    initialised, and all prune alike.

    Args:
        model: any network whose forward runs on `example_inputs`, also as `torch.compile`, `DataParallel` and
            `DistributedDataParallel` return it, whose results stay in use.
        example_inputs: what its forward takes: a tensor, a tuple of positional or a dict of keyword arguments, on the
            network's device; a list of several such examples, where none takes every branch of the network. A small
            batch of real data is best, for it also serves to check every removal.
        optimizer: the optimizer, or several, of its parameters; also as Accelerate, Lightning and DeepSpeed wrap it.
        config: what to prune and how much.
        copies: networks of the same structure that follow it, such as its `torch.optim.swa_utils.AveragedModel` or
            a deep copy: what dies in it is silenced there, and what leaves it leaves there.
        outputs: a function of what forward returns that gives the tensors which must keep their width, for example
            `lambda returned: returned[0]` of logits and membranes; all must if None. What it leaves out may become
            narrower, and is not compared when a removal is checked.

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

    @changes_tensors
    def __init__(
        self,
        model: nn.Module,
        example_inputs: Tensor | Inputs,
        optimizer: AnyOptimizer | Sequence[AnyOptimizer] | None = None,
        config: PruningConfig | None = None,
        copies: nn.Module | Sequence[nn.Module] = (),
        outputs: Outputs | None = None,
    ) -> None:
        self.model = unwrapped(model)
        check_unpruned(
            self.model,
            "go on with that one, or call its detach() before another is made; several pruners would undo each "
            "other's removals",
        )
        self.config = config or PruningConfig()
        self.epoch = 0
        wrappers = wrappers_around(model, self.model)
        self._ranks = Ranks.of(wrappers, self.model)
        self._example = self._ranks.broadcast(as_inputs(example_inputs, self.model))
        self._optimizers = known_optimizers(optimizer)
        followers = as_copies(copies, self.model)
        for example in examples_of(self._example):
            check_call(self.model, example)
        check_trained(self._optimizers, (self.model, *followers))
        self.wiring: Wiring = find_wiring(self.model, self._example, as_outputs(outputs))
        try_removal(self.model, self.wiring, self._example)
        self._copies = Copies(followers, self.wiring, self._optimizers)
        renew(wrappers)
        check_pruners(self._ranks, self.config, self.wiring, self._optimizers.given)
        self._state = PruningState(self.wiring, self.config, self._ranks)
        if not self._state.masks.units:
            raise ValueError(f"nothing in this network can be pruned:\n{self.wiring}")
        check_observable(self.wiring, self._state, self._counts_operations)
        self._ledger = CostLedger.of_dense(self.model, self.wiring, self._state.masks, self.config.round_to)
        if self.config.target_of == MEASURED:
            self._ledger.times = layer_times(self.model, self.wiring, self._example, self._ranks)
            renew(wrappers)
        if self.config.target_of not in (*OBSERVED, "weights"):
            self._check_reach()
        self._structure = Structure(self.model, self.wiring, self._state.masks)
        self._forwards, self._steps, self._steps_per_epoch = 0, 0, 0
        self._alive_before = self._units_alive()
        self._epsilon: dict[str, float] = {}
        self._connect()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the hooks, which copies of the network and of its optimizers come without."""
        state = {name: value for name, value in vars(self).items() if name not in _CONNECTION}
        return {**state, "_counted": self._observation.state_dict(), "_attached": self._mark is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        # of a network that holds its pruner nothing is there yet; the hooks follow when they are asked for
        if "_modules" in vars(self.model):
            self._connect_copy()

    def __getattr__(self, name: str) -> Any:
        if name in _CONNECTION and "_counted" in vars(self):
            self._connect_copy()
            return vars(self)[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _connect_copy(self) -> None:
        counted, attached = vars(self).pop("_counted"), vars(self).pop("_attached")
        for network in (self.model, *self._copies.models):
            remove_idle_hooks(network)
        self._connect()
        self._observation.load_state_dict(counted)
        self._silence.impose(self._state.masks)
        if not attached:
            self.detach()

    def _connect(self) -> None:
        """Put the hooks into the network and its optimizers."""
        # first, for it tells of what the next only silences
        self._handles: list[Any] = [Around(self.model, "before", self._before_forward)]
        self._silence = Silence(self.model, self.wiring, self._optimizers)
        self._observation = Observation(
            self.model,
            self.wiring,
            self._state,
            self.config,
            self._optimizers,
            self._counts_operations,
            lambda: self._may_die,
        )
        self._looked_at: dict[str, int] | None = None
        if self._optimizers.given:
            self._handles.append(self._optimizers.given[-1].register_step_post_hook(Hook(self._after_step)))
        for network in (self.model, *self._copies.models):
            self._handles.append(network.register_load_state_dict_pre_hook(Hook(self._before_loading)))
            self._handles.append(network.register_load_state_dict_post_hook(Hook(self._after_loading)))
        self._mark: object | None = mark(self.model, self._renew)
        recompile()

    @property
    def sparsity(self) -> float:
        """Share of the prunable weights that is dead."""
        self._renew()
        return self._share("weights")

    @property
    def achieved(self) -> float:
        """Share that is pruned of what `PruningConfig.target_of` names; 0.0 where nothing of it was observed yet."""
        self._renew()
        return self._share(self.config.target_of)

    @property
    def timestep_sparsity(self) -> float:
        """Share of the alive neurons' timesteps that is dead; 0.0 where timesteps do not die."""
        self._renew()
        return dead_timesteps(self._state.masks)

    def survival(self) -> dict[str, list[float | None]]:
        """Survival F of every unit of the dense network, by layer; None once it is dead."""
        survival, masks = self._state.survival, self._state.masks.units
        return {
            name: self._structure.of_dense(name, one.units, masks[name]) for name, one in survival.items()
        }

    @changes_tensors
    def step(self) -> PruneReport:
        """End an epoch: survival is updated by what was observed, and what falls below zero dies.

        Raises:
            RuntimeError: where what the criterion observes, training forwards or gradients, was not seen since the last
                step, or was not finite once in some layer.
        """
        epoch, config = self.epoch, self.config
        self._structure.check_intact()
        self._renew()
        check_networks(self._ranks, self.model)
        self._observation.end()
        self._state.share()
        left_out = self._state.bad_batches.end_epoch()
        if self._may_die and self._state.observes and not self._state.anything_observed:
            raise RuntimeError(self._observation.missing(self._optimizers.noticed))
        self._state.anything_observed = False
        self._update(epoch + 1.0)
        self._ranks.check_same("what is alive", {"masks": self._state.masks.digest()}, DIFFERENT)
        epsilon, self._epsilon = self._epsilon, {}
        before = self._alive_before
        self._check_claims()
        compacted = self._compact_if_worth_it() if config.compact == "auto" else None
        self._observation.begin_epoch()
        self._steps_per_epoch, self._steps = self._steps, 0
        self._forwards = 0
        self._alive_before = self._units_alive()
        self.epoch += 1
        return PruneReport(
            epoch=epoch,
            epsilon=epsilon,
            sparsity=self._share("weights"),
            timestep_sparsity=dead_timesteps(self._state.masks),
            target_of=config.target_of,
            achieved=self._share(config.target_of),
            target=config.due(epoch + 1.0),
            layers=layer_reports(
                self.wiring, self._state.masks, self._structure.units, self._structure.weights, before
            ),
            compacted=compacted,
            left_out=left_out,
        )

    @changes_tensors
    def compact(self) -> CompactReport:
        """Remove dead units physically: from parameters, buffers and optimizer state, in place.

        Raises:
            CompactionError: where the network would not compute the same without them; nothing is changed then.
        """
        self._structure.check_intact()
        self._renew()
        self._check_claims(always=True)
        check_own_tensors(self._optimizers)
        try:
            kept, report = remove_dead(
                self.model,
                self.wiring,
                self._state.masks,
                self._optimizers,
                self._example,
                self.config.round_to,
                partial(self._ranks.all, "check a removal"),
            )
            if not kept.everything:
                self._optimizers.removed = True
                self._copies.keep_only(kept)
                self._renumber(kept)
        finally:
            renew(wrappers_of(self.model, *self._copies.models))
        return report

    def detach(self) -> None:
        """Take every observing hook out of the network and its optimizers.

        Silenced timesteps stay silent, for they belong to the network; other dead that were not removed stay zero
        until something changes them.
        """
        self._renew()
        self._observation.remove()
        for handle in self._handles:
            handle.remove()
        self._silence.remove()
        unmark(self._mark)
        self._mark = None
        recompile()

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, as plain tensors and numbers; also the structure of a compacted network."""
        self._structure.check_intact()
        if not self._optimizers.given:
            self._observation.end()  # as the next forward would
        return {
            "version": VERSION,
            "epoch": self.epoch,
            "config": self.config.as_dict(),
            **self._structure.state_dict(),
            **self._ledger.dense_state(),
            "steps": self._steps,
            "steps_per_epoch": self._steps_per_epoch,
            "forwards": self._forwards,
            "alive_before": dict(self._alive_before),
            "epsilon": dict(self._epsilon),
            "refused": self._refused,
            **self._state.state_dict(),
            "activity": self._ledger.state_dict(),
            "observation": self._observation.state_dict(),
        }

    @changes_tensors
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state: the network takes the structure that was saved, with its optimizers and copies.

        Pruner, network and optimizer may be loaded in any order. A network may be dense, have taken the sizes of its
        own state when that was loaded, or have been compact when this pruner was made.

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
        check_criterion(state, self.config)
        kept = self._structure.leading_to(state)
        if not kept.everything:
            self._slice(kept)
            self._renumber(kept)
        self._structure.take(state)
        self._ledger.take_dense(state, self._structure.units, self._structure.weights)
        self.epoch = int(state["epoch"])
        self._steps, self._steps_per_epoch = state.get("steps", 0), state.get("steps_per_epoch", 0)
        self._forwards, self._refused = state.get("forwards", 0), state.get("refused", False)
        self._epsilon = dict(state.get("epsilon", {}))
        self._state.load_state_dict(state, self._structure.units)
        self._ledger.load_state_dict(state["activity"])
        self._observation.rewire()
        if "observation" in state:
            self._observation.load_state_dict(state["observation"])
        self._impose()
        self._alive_before = dict(state.get("alive_before", self._units_alive()))

    _refused = False
    _reach_checked = False
    _loaded = False
    """Whether a state was loaded into the network, and the dead not cleared since."""

    @property
    def _counts_operations(self) -> bool:
        return self.config.target is not None and self.config.target_of in OBSERVED

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
            self._state.share()
            if self._state.updatable:
                # a weight that is not finite is told of at the end of the epoch, not out of the optimizer's step
                with suppress(NotFinite):
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
            if self._looked_at is None:
                # the first deaths, which most often show what cannot be silenced
                self._check_claims()
        self._state.begin_interval()

    def _before_forward(self, *forward: Any) -> None:
        self._forwards += self.model.training and torch.is_grad_enabled()
        self._state.bad_batches.batch = self._forwards
        if self._loaded and not self._silence.lent:
            self._renew()

    @changes_tensors
    def _before_loading(self, network: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Let the network take the sizes of a state that is loaded into it, where it is smaller."""
        match_timesteps(network, state, prefix)
        kept = take_sizes(self._structure, network, state, prefix, self._slice)
        self._structure.complete(network, state, prefix)
        if not kept.everything:
            self._renumber(kept)

    def _after_loading(self, *loaded: Any) -> None:
        self._loaded = True

    @torch.no_grad()
    def _renew(self) -> None:
        """Silence the dead again, where something else wrote into them."""
        self._loaded = False
        self._silence.renew(self._state.masks)
        self._copies.renew(self._state.masks)

    def _slice(self, kept: Kept) -> Callable[[], None]:
        return slice_all(self.model, self.wiring, kept, self._optimizers, self._copies)

    def _share(self, cost: str) -> float:
        return self._ledger.share(cost, self._state.masks)

    def _units_alive(self) -> dict[str, int]:
        return {name: int(alive.sum()) for name, alive in self._state.masks.units.items()}

    def _check_reach(self) -> None:
        self._reach_checked = True
        check_reach(self._ledger, self._state, self.config)

    def _check_claims(self, always: bool = False) -> None:
        """Look whether the dead are silent, where any died since the last look."""
        if self._looked_at is None and all(bool(alive.all()) for alive in self._state.masks.units.values()):
            return
        while always or self._units_alive() != self._looked_at:
            self._looked_at = self._units_alive()
            if not give_up_what_is_not_silent(self.model, self.wiring, self._state, self._example):
                return
            self._observation.rewire()
            self._impose()

    def _impose(self) -> None:
        """Silence the dead, here and in the copies."""
        self._silence.impose(self._state.masks)
        self._copies.impose(self._state.masks)

    def _compact_if_worth_it(self) -> CompactReport | None:
        """Compact where another epoch like this one would save more multiplications than the removal takes."""
        forwards = self._ranks.largest("count forwards", self._forwards)
        if self._refused or not saves_time(self.wiring, self._state.masks, self.config.round_to, forwards):
            return None
        try:
            return self.compact()
        except CompactionError as error:
            self._refused = True
            warnings.warn(f"the dead stay in the network as zeros: {error}", stacklevel=3)
            return None

    def _renumber(self, kept: Kept) -> None:
        """Let everything that counts units and features follow a removal."""
        self._example = self.wiring.with_states(self._example, kept.features)
        self.wiring.keep(kept.units, kept.features)
        self._observation.rewire()
        self._structure.keep(kept)
        self._state.keep(kept)
        self._ledger.keep(kept)
        self._impose()
