"""Statistics of activity that several ranks observe together, each of its own samples.

A rank observes into its own statistics. Their increments since the last update are summed over the ranks when
something may die, so that all go on from the same sums, those of one process with the whole batch.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from dpap.plasticity import Criterion, Statistics
from dpap.pruning.distributed import Ranks

SUMS = ("units", "activity", "synapses", "timesteps")
"""Of statistics, what every batch adds to."""


class SharedStatistics:
    """What the statistics of a network were when the ranks last had the same, and how they come to be it again.

    Args:
        ranks: that observe.
        criterion: of the network.
        statistics: by weight layer; the dict itself, of which layers may be replaced and removed.
    """

    def __init__(self, ranks: Ranks, criterion: Criterion, statistics: dict[str, Statistics]) -> None:
        self.ranks = ranks
        self.criterion = criterion
        self.statistics = statistics
        self._before: dict[str, Statistics] = {}
        self._slots: dict[str, list[Tensor]] = {}
        self.begin()

    def begin(self) -> None:
        """Count increments from here, where all ranks have the same."""
        if self.ranks.many:
            self._before = {name: one.copy() for name, one in self.statistics.items()}

    def agree(self, before: Mapping[str, Statistics], finite: dict[str, bool]) -> dict[str, bool]:
        """In which layers a presentation was finite on every rank that saw it; theta that slides becomes that of all.

        Args:
            before: the statistics before the presentation, by layer.
            finite: whether the layer's presentation was finite here; without those that saw none.
        """
        if not self.ranks.many:
            return finite
        names = list(self.statistics)
        flags = torch.tensor([[finite.get(name) is each for name in names] for each in (True, False)])
        payload: list[Tensor] = []
        for name in names if self.criterion.slides else ():
            payload += self._threshold_moved(name, before.get(name), finite.get(name, False))
        counts, *moves = self.ranks.sum("share a presentation", [flags.double(), *payload])
        good, bad = (counts > 0).tolist()
        for place, name in enumerate(names if self.criterion.slides else ()):
            if good[place] and not bad[place]:
                self._slide(name, before.get(name), *moves[2 * place : 2 * place + 2])
        return {name: not bad[place] for place, name in enumerate(names) if good[place] or bad[place]}

    def reduce(self, flags: list[bool]) -> list[bool]:
        """Make the statistics those of all ranks together; returns which flags are set on any of them."""
        if not self.ranks.many:
            return flags
        parts = [torch.tensor(flags, dtype=torch.float64)]
        for name, now in self.statistics.items():
            before = self._before[name]
            parts += [getattr(now, part) - getattr(before, part) for part in self._parts(now)]
            if not self.criterion.slots:
                parts.append(_grown(now, before))
            counts = (now.samples - before.samples, now.batches - before.batches)
            parts.append(torch.tensor(counts, dtype=torch.float64))
        found, *sums = self.ranks.sum("add up what they observed", parts)
        totals = iter(sums)
        for name, now in self.statistics.items():
            before = self._before[name]
            for part in self._parts(now):
                setattr(now, part, getattr(before, part) + next(totals) / self._counted(part))
            theta = None if self.criterion.slots else next(totals)
            samples, batches = next(totals).tolist()
            now.samples = before.samples + int(samples)
            now.batches = before.batches + math.ceil(batches / self.ranks.number)
            if theta is not None and samples:
                total = before.threshold.double() * before.samples + theta.to(before.threshold.device)
                now.threshold = (total / now.samples).to(before.threshold)
        if self.criterion.slots:
            self._gather_slots()
        return [bool(each) for each in found]

    def of_all(self, name: str) -> Statistics:
        """The statistics of a layer as one process has them: with the batch slots of all ranks."""
        own = self.statistics[name]
        if name not in self._slots:
            return own
        slots = list(self._slots[name])
        slots[self.ranks.rank] = own.threshold
        return replace(own, threshold=torch.cat(slots))

    def divide(self) -> None:
        """Go on from statistics of one process, which were loaded: each rank has its own batch slots."""
        if self.ranks.many and self.criterion.slots:
            for name, own in self.statistics.items():
                parts = own.threshold.tensor_split(self.ranks.number)
                self._slots[name] = [part.clone() for part in parts]
                own.threshold = self._slots[name][self.ranks.rank].clone()
        self.begin()

    def keep(self, name: str, units: Tensor | None, features: Tensor | None) -> None:
        """Drop all but the given units and features of a layer."""
        if name in self._before:
            self._before[name].keep(units, features)
        if name in self._slots and units is not None:
            self._slots[name] = [slots.index_select(-1, units) for slots in self._slots[name]]

    def give_up(self, name: str) -> None:
        """Forget a layer."""
        self._before.pop(name, None)
        self._slots.pop(name, None)

    def _counted(self, part: str) -> int:
        """How often every observation is in the sums of all ranks: gradients are averaged over the ranks already, so
        that each has those of the whole batch; of activity each has its own.
        """
        by_activity = part == "timesteps" and self.criterion.observes_timesteps
        return self.ranks.number if self.criterion.observes_gradients and not by_activity else 1

    def _parts(self, statistics: Statistics) -> list[str]:
        return [part for part in SUMS if getattr(statistics, part) is not None]

    def _threshold_moved(self, name: str, before: Statistics | None, finite: bool) -> tuple[Tensor, Tensor]:
        """By how much the sum of which theta is the mean has grown, and its number of samples."""
        now = self.statistics[name]
        if before is None or not finite:
            return torch.zeros_like(now.threshold, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        return _grown(now, before), torch.tensor([now.samples - before.samples], dtype=torch.float64)

    def _slide(self, name: str, before: Statistics | None, grown: Tensor, samples: Tensor) -> None:
        """Let theta be the mean over the samples of all ranks."""
        now, shared = self.statistics[name], self._before[name]
        start = now if before is None else before
        total = start.threshold.double() * start.samples + grown
        now.samples = start.samples + int(samples)
        now.threshold = (total / now.samples).to(start.threshold)
        shared.threshold, shared.samples = now.threshold.clone(), now.samples

    def _gather_slots(self) -> None:
        """The thresholds of every rank's batch slots; a rank needs its own alone, but saves them all."""
        names = list(self.statistics)
        own = [len(self.statistics[name].threshold) for name in names]
        numbers = self.ranks.gather("count their batch slots", own)
        padded = []
        for place, name in enumerate(names):
            theta = self.statistics[name].threshold
            most = int(max(row[place] for row in numbers))
            every = theta.new_zeros(self.ranks.number, most, theta.shape[-1])
            every[self.ranks.rank, : len(theta)] = theta
            padded.append(every)
        for place, (name, every) in enumerate(
            zip(names, self.ranks.sum("share thresholds", padded), strict=True)
        ):
            self._slots[name] = [
                slots[: int(row[place])].clone() for slots, row in zip(every, numbers, strict=True)
            ]


def _grown(now: Statistics, before: Statistics) -> Tensor:
    """By how much the sum of which theta is the mean has grown."""
    return now.threshold.double() * now.samples - before.threshold.double() * before.samples
