"""Anatomy: which unit feeds which feature, found by staining."""

from dpap.anatomy.layers import register_layer
from dpap.anatomy.neurons import NeuronKind, neuron_kind, register_neuron
from dpap.anatomy.prunability import find_wiring
from dpap.anatomy.wiring import Attachment, NeuronSite, WeightLayer, Wiring

__all__ = [
    "Attachment",
    "NeuronKind",
    "NeuronSite",
    "WeightLayer",
    "Wiring",
    "find_wiring",
    "neuron_kind",
    "register_layer",
    "register_neuron",
]
