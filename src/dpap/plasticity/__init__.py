"""The equations of developmental plasticity-inspired adaptive pruning, as functions of tensors.

B. Han, F. Zhao, Y. Zeng, G. Shen, IEEE TPAMI 47(1), 2025, doi 10.1109/TPAMI.2024.3467268. Equation numbers
are those of that paper. `CRITERIA` holds what puts them together, and what they are compared with.
"""

from dpap.plasticity.criteria import CRITERIA, Criterion, Evidence
from dpap.plasticity.memory import Memory
from dpap.plasticity.spines import spines
from dpap.plasticity.survival import (
    critical_epsilon,
    exponential_decay,
    growth,
    normalise,
    ranked,
    staircase_decay,
    survive,
)
from dpap.plasticity.synapses import bcm, potentiation, sliding_threshold
from dpap.plasticity.timesteps import timestep_importance
from dpap.plasticity.traces import population_activity, running_traces, trace

__all__ = [
    "CRITERIA",
    "Criterion",
    "Evidence",
    "Memory",
    "bcm",
    "critical_epsilon",
    "exponential_decay",
    "growth",
    "normalise",
    "population_activity",
    "potentiation",
    "ranked",
    "running_traces",
    "sliding_threshold",
    "spines",
    "staircase_decay",
    "survive",
    "timestep_importance",
    "trace",
]
