"""Spiking neurons over [T, B, ...] and their surrogate gradients."""

from dpap.spiking.fold import FoldTime, over_time
from dpap.spiking.neurons import IF, LIF, PLIF, SpikingNeuron
from dpap.spiking.surrogate import SURROGATES, ArcTan, Sigmoid, Surrogate, Triangle

__all__ = [
    "IF",
    "LIF",
    "PLIF",
    "SURROGATES",
    "ArcTan",
    "FoldTime",
    "Sigmoid",
    "SpikingNeuron",
    "Surrogate",
    "Triangle",
    "over_time",
]
