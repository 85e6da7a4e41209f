"""Make a neural network smaller and faster while it learns."""

from dpap.anatomy import Wiring, find_wiring, register_layer, register_neuron
from dpap.export import ExportError, ExportReport, export_hub, export_nir, export_onnx
from dpap.plasticity import Criterion, LayerContext, register_criterion
from dpap.pruning import Decay, LayerReport, Pruner, PruneReport, PruningConfig
from dpap.surgery import (
    CompactionError,
    CompactReport,
    SparseReport,
    load,
    load_state,
    save,
    sparse_execution,
)

__version__ = "0.1.0"

__all__ = [
    "CompactReport",
    "CompactionError",
    "Criterion",
    "Decay",
    "ExportError",
    "ExportReport",
    "LayerContext",
    "LayerReport",
    "PruneReport",
    "Pruner",
    "PruningConfig",
    "SparseReport",
    "Wiring",
    "export_hub",
    "export_nir",
    "export_onnx",
    "find_wiring",
    "load",
    "load_state",
    "register_criterion",
    "register_layer",
    "register_neuron",
    "save",
    "sparse_execution",
]
