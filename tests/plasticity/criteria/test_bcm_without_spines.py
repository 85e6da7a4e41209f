import torch

from dpap.plasticity import CRITERIA
from support.context import context, rand


def test_units_are_worth_their_synapses_which_are_those_of_bcm():
    statistics_of = {}
    for name in ("bcm", "bcm_without_spines"):
        statistics_of[name] = CRITERIA[name].blank(3, 4, synapses=True, dtype=torch.float64)
        for seed in range(3):
            CRITERIA[name].observe(
                statistics_of[name], rand(2, 2, 4, seed=seed), rand(2, 2, 3, seed=seed + 9), 0.5
            )
    ablated = statistics_of["bcm_without_spines"]
    assert torch.equal(ablated.synapses, statistics_of["bcm"].synapses)
    units = CRITERIA["bcm_without_spines"].unit_importance(context(ablated))
    assert torch.allclose(units, ablated.synapses.sum(1), rtol=1e-12)
