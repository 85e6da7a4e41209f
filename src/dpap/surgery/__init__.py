"""Surgery: masks that hold, and removal that changes nothing else."""

from dpap.surgery.compact import CompactReport
from dpap.surgery.equivalence import CompactionError
from dpap.surgery.fitting import load_state
from dpap.surgery.masks import Masks
from dpap.surgery.silence import Silence
from dpap.surgery.sparse_products import SparseReport, sparse_execution
from dpap.surgery.storage import load, save

__all__ = [
    "CompactReport",
    "CompactionError",
    "Masks",
    "Silence",
    "SparseReport",
    "load",
    "load_state",
    "save",
    "sparse_execution",
]
