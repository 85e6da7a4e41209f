import torch

from dpap.plasticity import CRITERIA
from support.evidence import evidence, rand


def test_units_are_worth_their_synapses_which_are_those_of_bcm():
    memories = {}
    for name in ("bcm", "bcm_without_spines"):
        memories[name] = CRITERIA[name].blank(3, 4, synapses=True, dtype=torch.float64)
        for seed in range(3):
            CRITERIA[name].observe(
                memories[name], rand(2, 2, 4, seed=seed), rand(2, 2, 3, seed=seed + 9), 0.5
            )
    ablated = memories["bcm_without_spines"]
    assert torch.equal(ablated.synapses, memories["bcm"].synapses)
    units = CRITERIA["bcm_without_spines"].unit_importance(evidence(ablated))
    assert torch.allclose(units, ablated.synapses.sum(1), rtol=1e-12)
