"""Anatomy: which unit feeds which feature, found by staining."""

from dpap.anatomy.fates import find_wiring
from dpap.anatomy.neurons import NeuronKind, neuron_kind, register_neuron
from dpap.anatomy.wiring import Attachment, NeuronSite, Projection, Wiring

__all__ = [
    "Attachment",
    "NeuronKind",
    "NeuronSite",
    "Projection",
    "Wiring",
    "find_wiring",
    "neuron_kind",
    "register_neuron",
]
