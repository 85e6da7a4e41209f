"""Criteria of what is important, by name: one small file and one line each.

Survival, budget and surgery are the same for all of them.
"""

from dpap.plasticity.criteria.base import Criterion, LayerContext
from dpap.plasticity.criteria.bcm import Bcm
from dpap.plasticity.criteria.bcm_strength import BcmStrength
from dpap.plasticity.criteria.bcm_without_spines import BcmWithoutSpines
from dpap.plasticity.criteria.firing_rate import FiringRate
from dpap.plasticity.criteria.hebb import Hebb
from dpap.plasticity.criteria.magnitude import Magnitude
from dpap.plasticity.criteria.random import Random
from dpap.plasticity.criteria.random_once import RandomOnce
from dpap.plasticity.criteria.released import Released
from dpap.plasticity.criteria.stdp import Stdp

CRITERIA: dict[str, Criterion] = {
    "bcm": Bcm(),
    "bcm_strength": BcmStrength(),
    "bcm_without_spines": BcmWithoutSpines(),
    "hebb": Hebb(),
    "stdp": Stdp(),
    "released": Released(),
    "firing_rate": FiringRate(),
    "magnitude": Magnitude(),
    "random": Random(),
    "random_once": RandomOnce(),
}

__all__ = ["CRITERIA", "Criterion", "LayerContext"]
