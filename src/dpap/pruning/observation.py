"""What is observed of a training network: activity, contributions to the loss, operations, as far as asked for."""

from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import partial, reduce
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from dpap.anatomy import Wiring
from dpap.anatomy.observing.contributions import ContributionRecorder, unobserved
from dpap.anatomy.observing.levels import joint_step
from dpap.anatomy.observing.operations import OperationCounter, OperationCounts
from dpap.anatomy.observing.recording import Recorder, Recording
from dpap.anatomy.observing.sampling import UNSAMPLED
from dpap.plasticity import Contribution
from dpap.pruning.config import PruningConfig
from dpap.pruning.distributed import Ranks
from dpap.pruning.state import PruningState
from dpap.pruning.state_form import check_dict, check_form, check_operations
from dpap.surgery.known_optimizers import KnownOptimizers

COUNTED = 2
"""Of so many recorded presentations, one has its operations counted, where the target is a share of them."""


class Observation:
    """Observes what the criterion and the target ask for, and nothing else; passes it on to the state.

    Args:
        model: the network.
        wiring: of it.
        state: takes activity and contributions.
        config: what is asked for.
        optimizers: of the network, those that were given and others that are known.
        counts_operations: whether operations are counted too.
        active: whether anything that is observed now can lead to a death.
    """

    def __init__(
        self,
        model: nn.Module,
        wiring: Wiring,
        state: PruningState,
        config: PruningConfig,
        optimizers: KnownOptimizers,
        counts_operations: bool,
        active: Callable[[], bool],
    ) -> None:
        self.state = state
        self.ranks = state.ranks
        self._samples = 0
        masks, every = state.masks, config.observe_every
        self.wiring = wiring
        self._recorder: Recorder | None = None
        if state.observes_activity or counts_operations:
            self._recorder = Recorder(
                model, wiring, every, self._observe, optimizers.given, lambda: counts_operations or active()
            )
        self._counter = OperationCounter(wiring, self._counting, model) if counts_operations else None
        self._contributions: ContributionRecorder | None = None
        if state.criterion.observes_gradients:
            self._contributions = ContributionRecorder(
                model,
                wiring,
                masks.units,
                masks.synapses,
                masks.timesteps,
                every,
                self._observe_contributions,
                optimizers.given,
                active,
                partial(self.ranks.mean, "average contributions") if self.ranks.many else None,
                optimizers.noticed,
            )

    def end(self) -> None:
        """Pass on what was observed so far."""
        if self._recorder is not None:
            self._recorder.end_presentation()
        if self._contributions is not None:
            self._contributions.end_step()

    def begin_epoch(self) -> None:
        """Count from anew, so that every epoch is observed from its beginning."""
        if self._recorder is not None:
            self._recorder.begin_epoch()
        if self._contributions is not None:
            self._contributions.begin_epoch()

    def take_operations(self) -> tuple[dict[str, OperationCounts], int] | None:
        """The operations counted since they were last taken, on all ranks, and of how many samples; None where none are
        counted.
        """
        if self._counter is None:
            return None
        samples, self._samples = self._samples, 0
        counts = self._counter.take()
        return (
            summed_counts(self.ranks, self.wiring, counts, samples) if self.ranks.many else (counts, samples)
        )

    def state_dict(self) -> dict[str, Any]:
        """What was counted since the epoch began, as plain tensors and numbers."""
        recorder, contributions, counter = self._recorder, self._contributions, self._counter
        return {
            "presentations": dict(UNSAMPLED) if recorder is None else recorder.sampler.state(),
            "contributions": unobserved() if contributions is None else contributions.state_dict(),
            "samples": self._samples,
            "operations": {} if counter is None else counter.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            ValueError: where it is of another network.
        """
        check_dict(state, "observation")
        if "contributions" not in state:
            state = _of_fixed_stride(state)
        form = {"presentations": UNSAMPLED, "contributions": unobserved(), "samples": 0, "operations": {}}
        check_form(state, form, "observation")
        self._check_contributions(state["contributions"])
        features = {name: layer.features for name, layer in self.wiring.layers.items()}
        names = {each.name for each in fields(OperationCounts)}
        check_operations(state["operations"], features, names, "observation, operations")
        self._samples = state["samples"]
        if self._recorder is not None:
            self._recorder.sampler.load_state(state["presentations"])
        if self._contributions is not None:
            self._contributions.load_state_dict(state["contributions"])
        if self._counter is not None:
            self._counter.load_state_dict(state["operations"])

    def _check_contributions(self, given: dict[str, Any]) -> None:
        where = "observation, contributions"
        for place, one in given["samplers"].items():
            check_form(one, UNSAMPLED, f"{where}, samplers, {place}")
        if self._contributions is None:
            return
        for part, forms in self._contributions.forms(given).items():
            check_form(given[part], forms, f"{where}, {part}")

    def rewire(self) -> None:
        """Follow the wiring after a removal."""
        if self._contributions is not None:
            self._contributions.rewire()

    def remove(self) -> None:
        """Remove every hook."""
        for recorder in (self._recorder, self._contributions, self._counter):
            if recorder is not None:
                recorder.remove()

    def missing(self, noticed: Iterable[Optimizer]) -> str:
        """Why nothing may have been observed, and what to do; `noticed`: its optimizers that were not given."""
        if self._contributions is not None:
            how = (
                ""
                if self._contributions.samplers
                else " by loss.backward(), which leaves its parameters' gradients"
            )
            why = (
                "no gradient of the network was observed since the last step: call step() once an epoch, after "
                f"training{how}, and give Pruner the optimizer that trains this network"
            )
        else:
            why = (
                "no training forward of the network was observed since the last step: call step() once an epoch, "
                "after training, with the network in training mode (model.train()) and gradients on; within torch.func "
                "nothing is observed"
            )
        names = ", ".join(type(one).__name__ for one in noticed)
        return f"{why}; {names} steps its parameters and was not given" if names else why

    def _observe(self, recording: Recording) -> None:
        finite = self.state.observe(recording)
        agreed = partial(self.ranks.all, "count operations")
        if self._counts() and self._counter is not None and self._counter.accept(finite, agreed):
            self._samples += recording.batch
        if not finite and self._recorder is not None:
            self._recorder.sampler.again()  # the next is observed in its place

    def _observe_contributions(self, contributions: dict[str, Contribution]) -> None:
        if not self.state.observe_contributions(contributions) and self._contributions is not None:
            self._contributions.take_again()  # likewise

    def _counts(self) -> bool:
        """Whether the operations of the presentation that is recorded now are counted."""
        return self._recorder is not None and self._recorder.sampler.takes_also(COUNTED)

    def _counting(self) -> bool:
        return self._recorder is not None and self._recorder.recording and self._counts()


def _of_fixed_stride(state: dict[str, Any]) -> dict[str, Any]:
    """A state of earlier versions, which took every n-th step from the beginning of the epoch on."""
    check_form(state, {"presentations": 0, "steps": 0, "samples": 0, "operations": {}}, "observation")
    first = {**UNSAMPLED, "steps": state["steps"]}
    return {
        **state,
        "presentations": {**UNSAMPLED, "steps": state["presentations"]},
        "contributions": {**unobserved(), "samplers": {"0": first}},
    }


def summed_counts(
    ranks: Ranks, wiring: Wiring, counts: dict[str, OperationCounts], samples: int
) -> tuple[dict[str, OperationCounts], int]:
    """The operations that all ranks counted, and of how many samples."""
    blank = {name: torch.zeros(layer.features, dtype=torch.float64) for name, layer in wiring.layers.items()}
    here = [
        OperationCounts(blank[name], blank[name]) if counts.get(name) is None else counts[name]
        for name in blank
    ]
    numbers = torch.tensor([samples, *(name in counts for name in blank)], dtype=torch.float64)
    arrived = [part for each in here for part in (each.operations.double(), each.magnitude.double())]
    numbers, *sums = ranks.sum("add up operations", [numbers, *arrived])
    steps = ranks.gather("compare steps of activity", [each.step for each in here])
    total = {
        name: OperationCounts(
            sums[2 * place], sums[2 * place + 1], reduce(joint_step, [row[place] for row in steps])
        )
        for place, name in enumerate(blank)
        if numbers[1 + place]
    }
    return total, int(numbers[0])
