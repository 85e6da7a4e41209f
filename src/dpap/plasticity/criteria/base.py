"""What a criterion defines: how observed activity becomes importance, and importance a change of survival."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dpap.plasticity.statistics import Statistics
from dpap.plasticity.survival import exponential_decay, normalise
from dpap.plasticity.timesteps import timestep_importance
from dpap.plasticity.traces import running_traces, trace

Normalisation = Callable[[Tensor, Tensor], Tensor]
"""Maps importance [*unit] to [0, 1] over what is alive [*unit]."""


@dataclass(frozen=True)
class LayerContext:
    """What a criterion judges a weight layer by at the end of an epoch.

    Attributes:
        statistics: of its activity.
        weight: returns its weight [unit, incoming], one row of incoming weights per unit; called where needed only.
        name: of the layer.
        epoch: epochs trained before this one.
        seed: of whatever is drawn.

    Example:
        >>> import torch
        >>> from dpap.plasticity import CRITERIA, LayerContext
        >>> weight = torch.tensor([[1.0, -3.0], [0.5, 0.5]])
        >>> statistics = CRITERIA["magnitude"].blank(2, 2, synapses=True)
        >>> layer = LayerContext(statistics, lambda: weight, "fc1", epoch=0, seed=0)
        >>> CRITERIA["magnitude"].unit_importance(layer)
        tensor([2.0000, 0.5000])
    """

    statistics: Statistics
    weight: Callable[[], Float[Tensor, "unit incoming"]]
    name: str
    epoch: int
    seed: int

    def magnitudes(self) -> Float[Tensor, "unit incoming"]:
        """Absolute incoming weights of every unit, in the precision of the statistics."""
        return self.weight().abs().to(self.statistics.units.dtype)


@dataclass
class Presentation:
    """Activity of one weight layer in one batch, and its traces, each computed at most once.

    Attributes:
        pre: output of the features at each timestep; of one feature, the sum of all, where synapses do not die.
        post: output of the units at each timestep.
        tau: decay of the traces, (1).
    """

    pre: Float[Tensor, "time batch feature"]
    post: Float[Tensor, "time batch unit"]
    tau: float

    @cached_property
    def pre_trace(self) -> Float[Tensor, "batch feature"]:
        """Final traces of the features."""
        return trace(self.pre, self.tau)

    @cached_property
    def post_trace(self) -> Float[Tensor, "batch unit"]:
        """Final traces of the units."""
        return trace(self.post, self.tau)

    @cached_property
    def pre_traces(self) -> Float[Tensor, "time batch feature"]:
        """Traces of the features after each timestep."""
        return running_traces(self.pre, self.tau)

    @cached_property
    def post_traces(self) -> Float[Tensor, "time batch unit"]:
        """Traces of the units after each timestep."""
        return running_traces(self.post, self.tau)


@dataclass(frozen=True)
class Contribution:
    """First-order contribution of each part of one weight layer to the loss of one step, signed.

    Attributes:
        units: of each unit, the sum of w dL/dw over what reads it.
        synapses: of each synapse, w dL/dw; None where single synapses do not die.
        timesteps: of each neuron-timestep, the sum of s dL/ds over the samples, up to a factor that all layers share;
            None where they do not die.
    """

    units: Float[Tensor, " unit"]
    synapses: Float[Tensor, "unit feature"] | None = None
    timesteps: Float[Tensor, "time unit"] | None = None


class Criterion:
    """How observed activity becomes importance, and importance a change of survival.

    A criterion overrides what it computes. One that observes adds each batch to the sums of units and synapses
    (`observe_units`, `observe_synapses`), which are its importances at the end of the epoch. One that does not sets
    `observes` to False and returns importances by `unit_importance` and `synapse_importance`. All else has a default:
    sums of one epoch, timesteps by (8), the normalisation that was configured, continuous decay.

    Attributes:
        observes: whether importance of units and synapses comes from activity; in a layer that showed none nothing
            dies then.
        observes_timesteps: the same of neuron-timesteps.
        observes_gradients: whether importance comes from what each part contributes to the loss, which the gradients
            of training tell (`observe_contribution`), rather than from activity.
        strict: whether (10) protects delta > 0 only, rather than delta >= 0.
        slots: whether theta is kept per batch slot, which appear with the batches, rather than per unit.
        slides: whether importance depends on theta as every batch moves it: processes that train one network together
            then share it batch by batch, rather than with the sums, when something may die.

    Example:
        Importance by the largest response, and of a synapse by that of its feature:

        >>> import dpap
        >>> class Peak(dpap.Criterion):
        ...     def observe_units(self, sums, shown, statistics):
        ...         sums.copy_(sums.maximum(shown.post.amax((0, 1))))
        ...     def observe_synapses(self, sums, shown, statistics):
        ...         sums.copy_(sums.maximum(shown.pre.amax((0, 1))))
        >>> dpap.register_criterion("peak", Peak(), replace=True)
    """

    observes: ClassVar[bool] = True
    observes_timesteps: ClassVar[bool] = True
    observes_gradients: ClassVar[bool] = False
    strict: ClassVar[bool] = False
    slots: ClassVar[bool] = False
    slides: ClassVar[bool] = False

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
        """Statistics of a layer of which nothing has been observed.

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
        tau: float,
    ) -> None:
        """Add one batch to the statistics, in place.

        `pre` and `post` are the output of features and units at each timestep, `tau` is the decay of the traces.
        """
        with torch.autocast(post.device.type, enabled=False):
            pre, post = pre.to(statistics.units.dtype), post.to(statistics.units.dtype)
            if statistics.synapses is None:
                pre = pre.sum(2, keepdim=True)
            shown = self.presentation(pre, post, tau)
            if self.observes:
                self.observe_units(statistics.units, shown, statistics)
                if statistics.synapses is not None:
                    self.observe_synapses(statistics.synapses, shown, statistics)
                self.end_observation(shown, statistics)
            if self.observes_timesteps and statistics.timesteps is not None:
                self.observe_timesteps(statistics.timesteps, shown)
        statistics.samples += post.shape[1]
        statistics.batches += 1

    def presentation(
        self, pre: Float[Tensor, "time batch feature"], post: Float[Tensor, "time batch unit"], tau: float
    ) -> Presentation:
        """The activity of a batch, with the traces that this criterion takes."""
        return Presentation(pre, post, tau)

    def observe_units(
        self, sums: Float[Tensor, " unit"], shown: Presentation, statistics: Statistics
    ) -> None:
        """Add one batch to the importance of units, in place."""
        raise NotImplementedError(f"{type(self).__name__} observes, but defines no observe_units")

    def observe_synapses(
        self, sums: Float[Tensor, "unit feature"], shown: Presentation, statistics: Statistics
    ) -> None:
        """Add one batch to the importance of synapses, in place."""
        raise NotImplementedError(f"{type(self).__name__} observes, but defines no observe_synapses")

    def observe_timesteps(self, sums: Float[Tensor, "time unit"], shown: Presentation) -> None:
        """Add one batch to the importance of neuron-timesteps, in place: (8)."""
        total = running_traces(shown.pre.sum(2, keepdim=True), shown.tau)[:, :, 0]
        sums += timestep_importance(total, shown.post)

    def end_observation(self, shown: Presentation, statistics: Statistics) -> None:
        """Update what else the statistics hold, such as theta, once units and synapses have been observed."""

    def observe_contribution(self, statistics: Statistics, shown: Contribution) -> None:
        """Add what a layer contributed to the loss of one step to the statistics, in place."""
        raise NotImplementedError(
            f"{type(self).__name__} observes gradients, but defines no observe_contribution"
        )

    def begin_interval(self, statistics: Statistics, memory: float = 0.0) -> None:
        """Prepare the statistics for what comes after an update: sums keep this share of what they hold."""
        statistics.fade_sums(memory)

    def unit_importance(self, layer: LayerContext) -> Float[Tensor, " unit"]:
        """Importance of each neuron or channel. Like the next two, maybe the sums themselves: read only."""
        return layer.statistics.units

    def synapse_importance(self, layer: LayerContext) -> Float[Tensor, "unit feature"]:
        """Importance of each synapse.

        Raises:
            ValueError: the statistics are not of synapses.
        """
        return layer.statistics.of_synapses()

    def timestep_importance(self, layer: LayerContext) -> Float[Tensor, "time unit"]:
        """Importance of each neuron-timestep.

        Raises:
            ValueError: the statistics are not of timesteps.
        """
        return layer.statistics.of_timesteps()

    def normalise(
        self,
        importance: Float[Tensor, "*unit"],
        alive: Bool[Tensor, "*unit"],
        configured: Normalisation = normalise,
    ) -> Float[Tensor, "*unit"]:
        """Importance mapped to [0, 1] within its layer, as (9) takes it, in the way that was configured."""
        return configured(importance, alive)

    def decay(self, epoch: int, eta: float) -> float:
        """Weight of the change of survival in (11) at an epoch, counted from 0."""
        return exponential_decay(epoch, eta)
