"""BCM and spines weighed by synaptic strength: ours, where little is to be left."""

from jaxtyping import Float
from torch import Tensor

from dpap.plasticity.criteria.base import Evidence, synapses_of
from dpap.plasticity.criteria.bcm import Bcm
from dpap.plasticity.survival import ranked


class BcmStrength(Bcm):
    """Strength times the rank of the paper's importance within the layer: |w_ij| R(BCM_ij) and mean_j |w_ij| R(D_i).

    R goes from 0 to 1. The paper's equations say which neurons are busy together, not what passes between them; the
    heads of real spines grow with the strength of their synapses (Matsuzaki et al. 2001, Nature Neuroscience 4:1086).
    Ranks, for BCM has both signs: what is least correlated is worth nothing, however strong it is. What weighs 0, as
    all that is dead, has no rank.
    """

    def unit_importance(self, evidence: Evidence) -> Float[Tensor, " unit"]:
        strength = evidence.weight().abs().mean(1).to(evidence.memory.units.dtype)
        return strength * ranked(evidence.memory.units, strength > 0)

    def synapse_importance(self, evidence: Evidence) -> Float[Tensor, "unit feature"]:
        plasticity = synapses_of(evidence.memory)
        strength = evidence.weight().abs().to(plasticity.dtype)
        return strength * ranked(plasticity, strength > 0)
