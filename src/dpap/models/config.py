"""The choice of a network."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from dpap.models.notation import parse
from dpap.models.resnet import RESNETS
from dpap.spelling import suggestion
from dpap.spiking import SURROGATES

Neuron = Literal["lif", "if", "plif", "relu"]
Reset = Literal["hard", "soft"]
Readout = Literal["current", "rate"]


@dataclass(frozen=True)
class NetworkConfig:
    """A feed-forward network, spiking or not.

    Attributes:
        layers: notation of Table I, "15C3-AvgPool2-300FC-10FC", or the name of a preset (`models.PRESETS`)
            or of a residual network (`models.RESNETS`).
        neuron: "lif", "if", "plif" (learned tau) or "relu"; what follows up to `surrogate_parameter` and
            `readout` is for spiking neurons.
        timesteps: T, how long an image is shown; recordings of events have their own.
        tau: membrane time constant in timesteps, greater than 1.
        threshold: of the membrane.
        reset: "hard" to 0, "soft" by the threshold.
        detach_reset: whether the gradient ignores the reset.
        surrogate: "arctan", "sigmoid" or "triangle".
        surrogate_parameter: its alpha, or the triangle's width; None: its usual value.
        width: factor on the number of hidden channels and neurons.
        zero_init: whether residual blocks start as identities, their last norm's weights at 0.
        readout: logits are the mean over time of the output layer's currents, or of spikes of output neurons.
    """

    layers: str = "snn_2conv2fc"
    neuron: Neuron = "lif"
    timesteps: int = 8
    tau: float = 2.0
    threshold: float = 1.0
    reset: Reset = "hard"
    detach_reset: bool = False
    surrogate: str = "arctan"
    surrogate_parameter: float | None = None
    width: float = 1.0
    zero_init: bool = False
    readout: Readout = "current"

    def __post_init__(self) -> None:
        for name, choices in (
            ("neuron", get_args(Neuron)),
            ("reset", get_args(Reset)),
            ("surrogate", tuple(SURROGATES)),
            ("readout", get_args(Readout)),
        ):
            if getattr(self, name) not in choices:
                given = getattr(self, name)
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}; got {given!r}{suggestion(given, choices)}"
                )
        if self.timesteps < 1:
            raise ValueError(f"timesteps must be at least 1; got {self.timesteps}")
        if not (self.width > 0 and math.isfinite(self.width)):
            raise ValueError(f"width multiplies layer sizes and must be positive; got {self.width}")
        if self.layers not in RESNETS:
            parse(self.layers)
        if self.zero_init and self.layers not in RESNETS:
            raise ValueError(
                f"zero_init is for the residual networks {', '.join(RESNETS)}; got {self.layers!r}"
            )

    @property
    def spiking(self) -> bool:
        """Whether the neurons spike."""
        return self.neuron != "relu"
