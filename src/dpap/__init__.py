"""Make a neural network smaller and faster while it learns."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dpap.spelling import suggestion

if TYPE_CHECKING:
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

# torch takes seconds to import: the command's --version, --help and mistakes do without
_PLACES = {
    "anatomy": "Wiring find_wiring register_layer register_neuron",
    "export": "ExportError ExportReport export_hub export_nir export_onnx",
    "plasticity": "Criterion LayerContext register_criterion",
    "pruning": "Decay LayerReport PruneReport Pruner PruningConfig",
    "spiking": "",
    "surgery": "CompactReport CompactionError SparseReport load load_state save sparse_execution",
}
_PLACE_OF = {name: part for part, names in _PLACES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """A public name, from its part of the package; or such a part itself."""
    if name in _PLACE_OF:
        value = getattr(import_module(f"dpap.{_PLACE_OF[name]}"), name)
        globals()[name] = value
        return value
    if name in _PLACES:
        return import_module(f"dpap.{name}")
    raise AttributeError(f"module 'dpap' has no attribute {name!r}{suggestion(name, __all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
