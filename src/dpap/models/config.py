"""The choice of a network."""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from dpap.models.notation import parse
from dpap.models.resnet import RESNETS
from dpap.spelling import suggestion
from dpap.spiking import SURROGATES

Neuron = Literal["lif", "if", "plif", "relu"]
Spiking = Literal["lif", "if", "plif"]
Reset = Literal["hard", "soft"]
Readout = Literal["current", "rate"]
OWN = ("neuron", "threshold", "surrogate", "surrogate_parameter")
"""What fully connected layers may have of their own, as `fc_` and this."""


@dataclass(frozen=True)
class NetworkConfig:
    """A feed-forward network, spiking or not.

    Attributes:
        layers: notation of Table I, "15C3-AvgPool2-300FC-10FC", or the name of a preset (`models.PRESETS`)
            or of a residual network (`models.RESNETS`).
        neuron: "lif", "if", "plif" (learned tau) or "relu"; what follows up to `fc_surrogate_parameter` and
            `readout` is for spiking neurons.
        timesteps: T, how long an image is shown; recordings of events have their own.
        tau: membrane time constant in timesteps, greater than 1.
        threshold: of the membrane.
        reset: "hard" to 0, "soft" by the threshold.
        detach_reset: whether the gradient ignores the reset.
        surrogate: "arctan", "sigmoid" or "triangle".
        surrogate_parameter: its alpha, or the triangle's width; None: its usual value.
        learn_surrogate: whether each layer learns how narrow its surrogate is.
        fc_neuron, fc_threshold: of the neurons of fully connected layers; None: as the others.
        fc_surrogate, fc_surrogate_parameter: likewise; one of their own is not learned.
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
    learn_surrogate: bool = False
    fc_neuron: Spiking | None = None
    fc_threshold: float | None = None
    fc_surrogate: str | None = None
    fc_surrogate_parameter: float | None = None
    width: float = 1.0
    zero_init: bool = False
    readout: Readout = "current"

    def __post_init__(self) -> None:
        for name, choices in (
            ("neuron", get_args(Neuron)),
            ("reset", get_args(Reset)),
            ("surrogate", tuple(SURROGATES)),
            ("readout", get_args(Readout)),
            ("fc_neuron", (None, *get_args(Spiking))),
            ("fc_surrogate", (None, *SURROGATES)),
        ):
            if getattr(self, name) not in choices:
                given, names = getattr(self, name), [each for each in choices if each is not None]
                raise ValueError(
                    f"{name} must be one of {', '.join(names)}; got {given!r}{suggestion(str(given), names)}"
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

        own = [f"fc_{name}" for name in OWN if getattr(self, f"fc_{name}") is not None]
        if own and not self.spiking:
            raise ValueError(f"{own[0]} is of spiking neurons; neuron is {self.neuron!r}: leave it out")
        if self.fc_surrogate_parameter is not None and self.fc_surrogate is None:
            raise ValueError("fc_surrogate_parameter needs fc_surrogate, whose parameter it is; got None")

    @property
    def spiking(self) -> bool:
        """Whether the neurons spike."""
        return self.neuron != "relu"

    @property
    def of_fully_connected(self) -> "NetworkConfig":
        """The same with the neurons of fully connected layers in the place of the others."""
        own = {name: getattr(self, f"fc_{name}") for name in OWN}
        changes = {name: value for name, value in own.items() if value is not None}
        if self.fc_surrogate is not None:
            changes |= {"surrogate_parameter": self.fc_surrogate_parameter, "learn_surrogate": False}
        return replace(self, **changes)
