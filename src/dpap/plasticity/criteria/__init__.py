"""Criteria of what is important: one small file and one line each. See docs/extending/criterion.md.

Survival, budget and surgery are the same for all of them.
"""

from dpap.plasticity.criteria.base import Contribution, Criterion, LayerContext, Presentation
from dpap.plasticity.criteria.bcm import Bcm
from dpap.plasticity.criteria.bcm_strength import BcmStrength
from dpap.plasticity.criteria.bcm_without_spines import BcmWithoutSpines
from dpap.plasticity.criteria.firing_rate import FiringRate
from dpap.plasticity.criteria.hebb import Hebb
from dpap.plasticity.criteria.magnitude import Magnitude
from dpap.plasticity.criteria.random import Random
from dpap.plasticity.criteria.random_once import RandomOnce
from dpap.plasticity.criteria.registry import CRITERIA, register_criterion
from dpap.plasticity.criteria.released import Released
from dpap.plasticity.criteria.stdp import Stdp
from dpap.plasticity.criteria.taylor import Taylor
from dpap.plasticity.criteria.taylor_strength import TaylorStrength

register_criterion("taylor_strength", TaylorStrength())
register_criterion("taylor", Taylor())
register_criterion("bcm", Bcm())
register_criterion("bcm_strength", BcmStrength())
register_criterion("bcm_without_spines", BcmWithoutSpines())
register_criterion("hebb", Hebb())
register_criterion("stdp", Stdp())
register_criterion("released", Released())
register_criterion("firing_rate", FiringRate())
register_criterion("magnitude", Magnitude())
register_criterion("random", Random())
register_criterion("random_once", RandomOnce())

__all__ = ["CRITERIA", "Contribution", "Criterion", "LayerContext", "Presentation", "register_criterion"]
