"""The equations of developmental plasticity-inspired adaptive pruning, as functions of tensors.

B. Han, F. Zhao, Y. Zeng, G. Shen, IEEE TPAMI 47(1), 2025, doi 10.1109/TPAMI.2024.3467268. Equation numbers
are those of that paper. `CRITERIA` holds what puts them together, and what they are compared with.
"""

from dpap.plasticity.criteria import CRITERIA, Contribution, Criterion, LayerContext, register_criterion
from dpap.plasticity.spines import spines
from dpap.plasticity.statistics import Statistics
from dpap.plasticity.survival import (
    critical_epsilon,
    exponential_decay,
    normalise,
    ranked,
    staircase_decay,
    survival_change,
    update_survival,
)
from dpap.plasticity.synapses import bcm, potentiation, sliding_threshold
from dpap.plasticity.timesteps import timestep_importance
from dpap.plasticity.traces import population_activity, running_traces, trace

__all__ = [
    "CRITERIA",
    "Contribution",
    "Criterion",
    "LayerContext",
    "Statistics",
    "bcm",
    "critical_epsilon",
    "exponential_decay",
    "normalise",
    "population_activity",
    "potentiation",
    "ranked",
    "register_criterion",
    "running_traces",
    "sliding_threshold",
    "spines",
    "staircase_decay",
    "survival_change",
    "timestep_importance",
    "trace",
    "update_survival",
]
