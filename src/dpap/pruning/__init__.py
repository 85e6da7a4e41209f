"""The life cycle of a network that is pruned while it learns: observe, step, compact."""

from dpap.pruning.config import Decay, PruningConfig
from dpap.pruning.pruner import Pruner
from dpap.pruning.reports import LayerReport, PruneReport

__all__ = ["Decay", "LayerReport", "PruneReport", "Pruner", "PruningConfig"]
