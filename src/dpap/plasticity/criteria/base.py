"""What every criterion answers: how observed activity becomes importance, and importance a change of survival."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dpap.plasticity.statistics import Statistics
from dpap.plasticity.survival import exponential_decay, normalise
from dpap.plasticity.timesteps import timestep_importance
from dpap.plasticity.traces import running_traces

Normalisation = Callable[[Tensor, Tensor], Tensor]
"""Maps importance [*unit] to [0, 1] over the living [*unit]."""


@dataclass(frozen=True)
class LayerContext:
    """What a criterion judges a projection by at the end of an epoch.

    Attributes:
        memory: of its activity.
        weight: gives its weight [unit, incoming], one row of incoming weights per unit; asked for where needed only.
        name: of the projection.
        epoch: epochs learned before this one.
        seed: of whatever is drawn.
    """

    statistics: Statistics
    weight: Callable[[], Float[Tensor, "unit incoming"]]
    name: str
    epoch: int
    seed: int


class Criterion(ABC):
    """How observed activity becomes importance, and importance a change of survival.

    What is here is common: sums of one epoch, timesteps by (8), min-max over the living, continuous decay.

    Attributes:
        observes: whether importance comes from activity; nothing dies then in a projection that showed none.
        strict: whether (10) protects delta > 0 only, rather than delta >= 0.
        slots: whether theta is kept per batch slot, which appear with the batches, rather than per unit.
    """

    observes: ClassVar[bool] = True
    strict: ClassVar[bool] = False
    slots: ClassVar[bool] = False

    def blank(
        self,
        units: int,
        features: int,
        *,
        synapses: bool,
        timesteps: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Statistics:
        """The memory of a projection that nothing has been observed of.

        `synapses`: whether single synapses can die; `timesteps`: how many there are, if they can die.
        """

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        return Statistics(
            threshold=zeros(0, units) if self.slots else zeros(units),
            units=zeros(units),
            activity=zeros(units),
            synapses=zeros(units, features) if synapses else None,
            timesteps=zeros(timesteps, units) if timesteps is not None else None,
        )

    @torch.no_grad()
    def observe(
        self,
        statistics: Statistics,
        pre: Float[Tensor, "time batch feature"],
        post: Float[Tensor, "time batch unit"],
        decay: float,
    ) -> None:
        """Add one batch to the memory, in place.

        `pre` and `post` are the output of features and units at each timestep, `decay` is that of the traces.
        """
        with torch.autocast(post.device.type, enabled=False):
            pre, post = pre.to(statistics.units.dtype), post.to(statistics.units.dtype)
            if statistics.synapses is None:
                pre = pre.sum(2, keepdim=True)
            self._add(statistics, pre, post, decay)
            if statistics.timesteps is not None:
                statistics.timesteps += self._of_timesteps(pre, post, decay)
        statistics.samples += post.shape[1]
        statistics.batches += 1

    @abstractmethod
    def _add(
        self,
        statistics: Statistics,
        pre: Float[Tensor, "time batch feature"],
        post: Float[Tensor, "time batch unit"],
        decay: float,
    ) -> None:
        """Add one batch to what units and synapses are judged by.

        Where the memory holds no synapses, `pre` is one feature, the sum of all.
        """

    def _of_timesteps(
        self,
        pre: Float[Tensor, "time batch feature"],
        post: Float[Tensor, "time batch unit"],
        decay: float,
    ) -> Float[Tensor, "time unit"]:
        """What one batch adds to the importance of neuron-timesteps."""
        return timestep_importance(running_traces(pre.sum(2, keepdim=True), decay)[:, :, 0], post)

    def begin_epoch(self, statistics: Statistics) -> None:
        """Prepare the memory for another epoch of observing."""
        statistics.forget()

    def unit_importance(self, context: LayerContext) -> Float[Tensor, " unit"]:
        """Importance of each neuron or channel. Like the next two, maybe the sums themselves: read only."""
        return context.statistics.units

    def synapse_importance(self, context: LayerContext) -> Float[Tensor, "unit feature"]:
        """Importance of each synapse.

        Raises:
            ValueError: the memory is not one of synapses.
        """
        return synapses_of(context.statistics)

    def timestep_importance(self, context: LayerContext) -> Float[Tensor, "time unit"]:
        """Importance of each neuron-timestep.

        Raises:
            ValueError: the memory is not one of timesteps.
        """
        return timesteps_of(context.statistics)

    def normalise(
        self,
        importance: Float[Tensor, "*unit"],
        alive: Bool[Tensor, "*unit"],
        mapped: Normalisation = normalise,
    ) -> Float[Tensor, "*unit"]:
        """Importance mapped to [0, 1] within its layer, as (9) takes it, in the way that was asked for."""
        return mapped(importance, alive)

    def decay(self, epoch: int, eta: float) -> float:
        """Weight of the change of survival in (11) at an epoch, counted from 0."""
        return exponential_decay(epoch, eta)


def strengths(context: LayerContext) -> Float[Tensor, "unit incoming"]:
    """Magnitudes of the incoming weights of every unit, in the precision of the memory."""
    return context.weight().abs().to(context.statistics.units.dtype)


def synapses_of(statistics: Statistics) -> Float[Tensor, "unit feature"]:
    """The sums of a memory's synapses.

    Raises:
        ValueError: the memory is not one of synapses.
    """
    if statistics.synapses is None:
        raise ValueError("this memory counts no synapses: make it with blank(..., synapses=True)")
    return statistics.synapses


def timesteps_of(statistics: Statistics) -> Float[Tensor, "time unit"]:
    """The sums of a memory's neuron-timesteps.

    Raises:
        ValueError: the memory is not one of timesteps.
    """
    if statistics.timesteps is None:
        raise ValueError("this memory counts no timesteps: make it with blank(..., timesteps=T)")
    return statistics.timesteps
