"""Where time and samples are in an activity, which layers emit in many shapes."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Activity = Float[Tensor, "_ _ _"]
"""[T, B, features]; T = 1 where it is constant over time."""


def map_summed(activity: Tensor, axis: int) -> Float[Tensor, "*lead feature"]:
    """Sum over everything behind the feature axis (from the end), in at least single precision."""
    if axis == -1:
        return activity
    return activity.sum(tuple(range(axis + 1, 0)), dtype=_precise(activity))


@dataclass(frozen=True)
class ActivityAxes:
    """How time passes in one forward of a network.

    Attributes:
        time: timesteps.
        batch: samples.
        time_first: whether activities that hold all timesteps count them before the samples.
        looped: whether each call of a layer is one timestep.
    """

    time: int
    batch: int
    time_first: bool = True
    looped: bool = False

    @classmethod
    def of(cls, calls: list[Tensor], time_axis: int | None) -> "ActivityAxes":
        """From the calls [..., features] of spiking neurons, which have time along an axis or are timesteps."""
        if time_axis is None:
            return cls(len(calls), len(calls[0]), looped=True)
        time, batch = calls[0].movedim(time_axis, 0).shape[:2]
        return cls(time, batch, time_first=time_axis == 0)

    def of_spikes(self, calls: list[Tensor], time_axis: int | None) -> Activity | None:
        """What spiking neurons emitted; axes between samples and units are summed."""
        if not calls:
            return None
        stacked = torch.stack(calls) if time_axis is None else calls[0].movedim(time_axis, 0)
        return stacked.flatten(2, -2).sum(2) if stacked.ndim > 3 else stacked

    def of_call(self, calls: list[Tensor], call: int) -> list[Tensor]:
        """The calls that are one call of a timestep, or of a forward, repeated over time."""
        return (
            calls[call % self._rounds(calls) :: self._rounds(calls)]
            if self._loops(calls)
            else calls[call:][:1]
        )

    def unfolded(self, calls: list[Tensor]) -> Activity | None:
        """The calls of one layer, those that are not timesteps summed; None where there was none."""
        if self._loops(calls):
            steps = [self._samples(call, 1) for call in calls]
            if all(step is not None for step in steps):
                stacked = torch.cat([step for step in steps if step is not None])
                return stacked.unflatten(0, (self.time, -1)).sum(1)
        total: Tensor | None = None
        for call in calls:
            activity = self._samples(call, self.time)
            if activity is None:
                activity = self._samples(call, 1)
            if activity is None:
                activity = self._spread(call)
            total = activity if total is None else total + activity
        return total

    def _rounds(self, calls: list[Tensor]) -> int:
        return len(calls) // self.time

    def _loops(self, calls: list[Tensor]) -> bool:
        return self.looped and self.time > 1 and bool(calls) and len(calls) % self.time == 0

    def _spread(self, call: Tensor) -> Activity:
        """A call of which no sample can be told from another, as of a ragged batch: its sum, in equal parts."""
        rows = call.reshape(-1, call.shape[-1])
        total = rows.sum(0, dtype=_precise(rows)) / (self.time * self.batch)
        return total.expand(1, self.batch, -1)

    def _samples(self, call: Tensor, time: int) -> Activity | None:
        """A call as [time, B, features], other axes summed."""
        flat = call.reshape(-1, call.shape[-1])
        if len(flat) % (time * self.batch) != 0:
            return None
        if self.time_first:
            rows = flat.view(time, self.batch, -1, flat.shape[-1])
        else:
            rows = flat.view(self.batch, time, -1, flat.shape[-1]).transpose(0, 1)
        return rows[:, :, 0] if rows.shape[2] == 1 else rows.sum(2, dtype=_precise(rows))


def _precise(activity: Tensor) -> torch.dtype:
    return torch.promote_types(activity.dtype, torch.float32)
