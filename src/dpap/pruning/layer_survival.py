"""The survival function of all that can die in a weight layer: its units, synapses and neuron-timesteps."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from dpap.plasticity import CRITERIA, Statistics
from dpap.plasticity.survival import critical_epsilon, survival_change, update_survival
from dpap.pruning.config import Decay, PruningConfig


@dataclass
class LayerSurvival:
    """Survival F of (11) of one weight layer.

    Attributes:
        kind: "conv", "fc" or "recurrent", which decides the constants.
        units: F of its units.
        synapses: F of its synapses, or None where single synapses do not die.
        timesteps: F of its neuron-timesteps, or None where they do not die.
    """

    kind: str
    units: Float[Tensor, " unit"]
    synapses: Float[Tensor, "unit feature"] | None
    timesteps: Float[Tensor, "time unit"] | None

    @classmethod
    def initial(cls, kind: str, statistics: Statistics, config: PruningConfig) -> "LayerSurvival":
        """Survival beta of everything that the statistics cover."""

        def beta_of(like: Tensor | None, decay: Decay) -> Tensor | None:
            return None if like is None else torch.full_like(like, decay.beta)

        return cls(
            kind,
            torch.full_like(statistics.units, constants(config, kind).beta),
            beta_of(statistics.synapses, config.synapse),
            beta_of(statistics.timesteps, config.timestep),
        )

    def parts(self) -> Iterator[tuple[str, Tensor]]:
        """The survival tensors that are kept, by name."""
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                yield item.name, value

    def keep(self, units: Tensor | None, features: Tensor | None) -> None:
        """Drop all but the given units and features; None keeps all of them."""
        if units is not None:
            self.units = self.units[units]
            self.synapses = None if self.synapses is None else self.synapses[units]
            self.timesteps = None if self.timesteps is None else self.timesteps[:, units]
        if features is not None and self.synapses is not None:
            self.synapses = self.synapses[:, features]


def constants(config: PruningConfig, kind: str) -> Decay:
    """Constants of what can die: "conv", "fc" (its neurons), "synapses" or "timesteps"."""
    return {
        "conv": config.conv,
        "fc": config.neuron,
        "recurrent": config.neuron,
        "synapses": config.synapse,
        "timesteps": config.timestep,
    }[kind]


def critical_shift(
    survival: Float[Tensor, "..."],
    importance: Float[Tensor, "..."],
    decay: Decay,
    epoch: int,
    config: PruningConfig,
) -> Float[Tensor, "..."]:
    """Shift of the decay value above which each dies this epoch, from (9)-(11)."""
    strength = CRITERIA[config.criterion].decay(epoch, decay.eta)
    return critical_epsilon(importance, survival, config.survival_memory, strength) - decay.epsilon


def updated_survival(
    survival: Float[Tensor, "..."],
    importance: Float[Tensor, "..."],
    decay: Decay,
    shift: float,
    epoch: int,
    config: PruningConfig,
) -> Float[Tensor, "..."]:
    """Survival after this epoch, (9)-(11), with the decay value moved by `shift`."""
    criterion = CRITERIA[config.criterion]
    change = survival_change(importance, decay.epsilon + shift, decay.protection, criterion.strict)
    return update_survival(survival, change, config.survival_memory, criterion.decay(epoch, decay.eta))
