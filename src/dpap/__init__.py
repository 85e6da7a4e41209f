"""Make a neural network smaller and faster while it learns."""

from dpap.anatomy import Wiring, find_wiring, register_neuron
from dpap.pruning.config import Decay, PruningConfig
from dpap.pruning.pruner import Pruner
from dpap.pruning.reports import LayerReport, PruneReport
from dpap.surgery import CompactionError, CompactReport, load, save

__version__ = "0.1.0"

__all__ = [
    "CompactReport",
    "CompactionError",
    "Decay",
    "LayerReport",
    "PruneReport",
    "Pruner",
    "PruningConfig",
    "Wiring",
    "find_wiring",
    "load",
    "register_neuron",
    "save",
]
