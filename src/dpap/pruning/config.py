"""What can be configured about pruning; every constant says where it comes from."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from dpap.plasticity import CRITERIA
from dpap.pruning.schedule import scheduled_share
from dpap.spelling import suggestion

TargetOf = Literal["weights", "parameters", "macs", "latency", "synaptic_operations", "energy"]
"""What a target is a share of."""

OF_UNITS = ("parameters", "macs", "latency")
"""What only whole units save."""


@dataclass(frozen=True)
class Decay:
    """The constants of equations (9)-(11) for one kind of thing that can die.

    Attributes:
        epsilon: decay value, subtracted from the doubled importance (9); larger prunes more. With a target
            it is only the offset between kinds: the budget adds one shift to all of them.
        eta: decay rate in epochs (11); larger lets survival change for longer.
        beta: survival before the first epoch (11).
        protection: C of (10), added where the importance is at least half the decay value; 0 protects nothing.

    Example:
        >>> from dpap import Decay, PruningConfig
        >>> slow = Decay(epsilon=0.65, eta=40.0, beta=3.0, protection=5.0)
        >>> PruningConfig(conv=slow).conv.eta
        40.0
    """

    epsilon: float
    eta: float
    beta: float
    protection: float

    def __post_init__(self) -> None:
        if not self.eta > 0:
            raise ValueError(f"eta is a decay rate in epochs, above 0; got {self.eta}")
        for name in ("beta", "protection"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0; got {getattr(self, name)}")


_EVEN = Decay(epsilon=1.0, eta=12.0, beta=1.0, protection=0.0)


@dataclass(frozen=True)
class PruningConfig:
    """How a network is pruned while it learns.

    What is left as it is follows the rule that our experiments favour (docs/choosing.md); `PruningConfig.paper()` is
    the paper's.

    Attributes:
        target: share that is pruned at `end_epoch`, in [0, 1), of what `target_of` names. None: the paper's
            emergent rule, where epsilon and eta decide how much dies.
        target_of: "weights": of the prunable weights, those that are dead. "parameters", "macs", "latency": of all
            parameters, of the multiplications of an inference, or of the time that its weight layers take, what
            `Pruner.compact()` takes away; only whole units do, so with such a target no single synapse dies. The time
            is measured when the pruner is made, on the example and its device, so two runs differ by what it was.
            "synaptic_operations", "energy": of the operations that activity causes at weights, as it is observed, or of
            their energy (45 nm), what the dead save.
        end_epoch: epoch (1 = after the first) by which the target is met. Required with a target.
        start_epoch: epochs that only observe before the first death; 1 is ours, the least on which to judge; of few
            or small epochs take more (N-MNIST, 50 batches an epoch: 5 rather than 2 gained 2 points).
        criterion: what is important. "taylor_strength": what contributes to the loss, by the gradients of training,
            shared among the synapses of a unit by their strength; "taylor": of each synapse by itself. "bcm" follows
            the paper's equations; "bcm_strength", ours, weighs them by the magnitude of the weights.
            "bcm_without_spines", "hebb" and "stdp" replace a part of them, "released" is the authors' code formula for
            formula; "firing_rate", "magnitude", "random" (drawn anew every epoch) and "random_once" are what any of
            them should be better than; others by `dpap.register_criterion`.
        scope: what importances are compared over. "network": all layers, each unit and synapse by its importance for
            what its death saves of the target's cost; units that can only be removed together die together. "layer":
            each layer by itself, as in the paper.
        deaths_per_epoch: with a target, something dies so many times in an epoch, evenly spread over the steps of the
            optimizer as the last epoch had them; 1: at the end of the epoch, as in the paper, and as without an
            optimizer and in the first epoch.
        memory: share of the observed sums that outlasts the deaths that they led to; 0: sums start again, as in (6).
        seed: of what is drawn: the importances of "random" and "random_once".
        synapses: whether single synapses of fully connected layers die too, besides neurons and channels.
        timesteps: whether neuron-timesteps of spiking neurons die.
        timestep_target: share of neuron-timesteps that is dead at `end_epoch`; implies `timesteps`.
        observe_every: observe one of every n batches, or steps of the optimizer, and the first n of each epoch; at
            changing places, so that of tasks in turn all are observed alike. 4 is ours, for the cost.
        min_units: units of each layer, the strongest, that survive whatever their importance; 2 is ours, so
            that no layer dies whole.
        min_share: share of each layer's units that survives likewise; 0.05 is ours. Without it the layer whose
            survival falls first can starve: docs/results/constants.md.
        round_to: layers keep a multiple of so many units, or all: 8 suits GPUs, whose tensor cores take 16-bit
            channels by eights (NVIDIA, "Matrix Multiplication Background"); 1 leaves widths alone.
        compact: "auto" removes the dead physically during training once that is worth it (where the check
            refuses it warns, once, and they stay as zeros), "manual" leaves it to `Pruner.compact()`.
        trace_decay: tau of equation (1), the paper's; 1 counts activity without forgetting any.
        gamma: what remains of survival after each update (11); 0 lets each decide alone. None: 0 with a target, where
            `memory` does what it is for, and the paper's 0.999 without one, where survival alone decides.
        normalisation: of importances within a layer, for (9): "linear", the paper's, or by "rank", ours.
        clip: quantile of a layer's importances from which on all count as 1 where (9) is linear; 1.0 is min-max.
        conv, neuron, synapse, timestep: constants of conv channels, fully connected neurons, their synapses, and
            neuron-timesteps; with a target and gamma 0 only the differences between their epsilons count.

    Raises:
        ValueError: where a value is out of range, or two contradict each other.

    Example:
        >>> from dpap import PruningConfig
        >>> config = PruningConfig(target=0.9, end_epoch=20, compact="auto")
        >>> config.floor(300)  # of 300 units so many survive whatever their importance
        15
        >>> PruningConfig(target=0.9)
        Traceback (most recent call last):
        ValueError: a target needs end_epoch, the epoch by which it is met; got None
    """

    target: float | None = None
    target_of: TargetOf = "weights"
    end_epoch: int | None = None
    start_epoch: int = 1
    criterion: str = "taylor_strength"
    scope: Literal["layer", "network"] = "network"
    deaths_per_epoch: int = 10
    memory: float = 0.9
    seed: int = 0
    synapses: bool = True
    timesteps: bool = False
    timestep_target: float | None = None
    observe_every: int = 4
    min_units: int = 2
    min_share: float = 0.05
    round_to: int = 1
    compact: Literal["manual", "auto"] = "manual"
    trace_decay: float = 0.5
    gamma: float | None = None
    normalisation: Literal["linear", "rank"] = "rank"
    clip: float = 0.75
    conv: Decay = _EVEN
    neuron: Decay = _EVEN
    synapse: Decay = _EVEN
    timestep: Decay = _EVEN

    def __post_init__(self) -> None:
        if self.criterion not in CRITERIA:
            raise ValueError(
                f"criterion must be one of {', '.join(CRITERIA)}, or of your own, after dpap.register_criterion; got "
                f"{self.criterion!r}{suggestion(self.criterion, CRITERIA)}"
            )
        if self.normalisation not in ("linear", "rank"):
            raise ValueError(f"normalisation must be linear or rank; got {self.normalisation!r}")
        if self.scope not in ("layer", "network"):
            raise ValueError(f"scope must be layer or network; got {self.scope!r}")
        for name in ("trace_decay", "gamma", "memory"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} is a share, in [0, 1]; got {value}")
        if not 0 <= self.min_share < 1:
            raise ValueError(
                f"min_share is the share of units that survives, in [0, 1); got {self.min_share}"
            )
        if not 0 < self.clip <= 1:
            raise ValueError(f"clip is a quantile, in (0, 1]; 1 clips nothing; got {self.clip}")
        for name in ("target", "timestep_target"):
            share = getattr(self, name)
            if share is not None and not 0 <= share < 1:
                raise ValueError(f"{name} is the share that dies, in [0, 1); got {share}")
        if self.target_of not in get_args(TargetOf):
            raise ValueError(
                f"target_of must be one of {', '.join(get_args(TargetOf))}; got {self.target_of!r}"
                f"{suggestion(self.target_of, get_args(TargetOf))}"
            )
        if (self.target is not None or self.timestep_target is not None) and self.end_epoch is None:
            raise ValueError("a target needs end_epoch, the epoch by which it is met; got None")
        if self.start_epoch < 0:
            raise ValueError(f"start_epoch is a number of epochs, at least 0; got {self.start_epoch}")
        if self.end_epoch is not None and self.end_epoch <= self.start_epoch:
            raise ValueError(
                f"end_epoch must lie after start_epoch; got end_epoch={self.end_epoch}, "
                f"start_epoch={self.start_epoch}"
            )
        for name in ("observe_every", "min_units", "round_to", "deaths_per_epoch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")

    @classmethod
    def paper(cls, **changes: Any) -> "PruningConfig":
        """The paper's rule, with constants that experiments chose; `changes` are of any field.

        Protection is the paper's C (5 conv, 2 fc); eta, `clip` and epsilon of fully connected layers are those of the
        released code (eta 12 for all), and its 0.65 of channels is that of timesteps. By experiment: channels' epsilon
        (smaller starves fully connected layers at 98%, larger costs accuracy at 90%), ranks (less depends on how skewed
        a criterion is), beta (with 0 layers starve, 5 is no better than 1) and `min_share`; eta from 4 to 40 and
        protection from 0 to 5 made no difference beyond the noise. Evidence: docs/results/constants.md.

        Example:
            >>> from dpap import PruningConfig
            >>> PruningConfig.paper(target=0.5, end_epoch=20).criterion
            'bcm'
        """
        fc = Decay(epsilon=1.5, eta=12.0, beta=1.0, protection=2.0)
        constants: dict[str, Any] = {
            "criterion": "bcm",
            "scope": "layer",
            "deaths_per_epoch": 1,
            "memory": 0.0,
            "gamma": 0.999,
            "conv": Decay(epsilon=1.0, eta=12.0, beta=1.0, protection=5.0),
            "neuron": fc,
            "synapse": fc,
            "timestep": Decay(epsilon=0.65, eta=12.0, beta=1.0, protection=2.0),
        }
        return cls(**{**constants, **changes})

    @classmethod
    def released(cls) -> "PruningConfig":
        """The criterion and constants of the authors' released code, with its 5 epochs before the first death.

        Exact as long as nothing is compacted, for what is removed leaves the normalisation.

        Example:
            >>> from dpap import PruningConfig
            >>> PruningConfig.released().conv.epsilon
            0.65
        """
        fc = Decay(epsilon=1.5, eta=13.0, beta=10.0, protection=2.0)
        conv = Decay(epsilon=0.65, eta=12.0, beta=10.0, protection=5.0)
        return cls.paper(
            criterion="released",
            start_epoch=5,
            observe_every=1,
            min_units=1,
            min_share=0.0,
            conv=conv,
            neuron=fc,
            synapse=fc,
        )

    @property
    def survival_memory(self) -> float:
        """What remains of survival after an update: `gamma`, or what it is by default."""
        if self.gamma is not None:
            return self.gamma
        return 0.999 if self.target is None else 0.0

    @property
    def prunes_timesteps(self) -> bool:
        """Whether neuron-timesteps die."""
        return self.timesteps or self.timestep_target is not None

    @property
    def prunes_synapses(self) -> bool:
        """Whether single synapses die: not where the target is a share of what only whole units save."""
        return self.synapses and (self.target is None or self.target_of not in OF_UNITS)

    def due(self, progress: float) -> float | None:
        """Share that should be pruned after so many epochs; None without a target."""
        if self.target is None or self.end_epoch is None:
            return None
        return scheduled_share(self.target, progress, self.start_epoch, self.end_epoch)

    def floor(self, units: int) -> int:
        """How many of a layer of so many units survive whatever their importance."""
        return max(self.min_units, math.ceil(self.min_share * units))

    def as_dict(self) -> dict[str, Any]:
        """The configuration as plain values, to write down and compare."""
        return asdict(self)
