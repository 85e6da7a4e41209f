import torch

from dpap.plasticity import CRITERIA
from support.context import context, rand, spikes

STRENGTH = CRITERIA["bcm_strength"]


def plain_ranks(values: list[float]) -> list[float]:
    """Share of the others that are less, equals counted half."""
    return [
        (sum(v < value for v in values) + (values.count(value) - 1) / 2) / (len(values) - 1)
        for value in values
    ]


def observed():
    statistics = STRENGTH.blank(3, 4, synapses=True, dtype=torch.float64)
    for seed in range(5):
        STRENGTH.observe(statistics, spikes(2, 8, 4, seed=seed), spikes(2, 8, 3, seed=seed + 9), 0.5)
    return statistics


def test_synapses_are_worth_strength_times_the_rank_of_bcm_and_units_their_mean_strength():
    statistics, weight = observed(), rand(3, 4, seed=7) - 0.5
    ranks = torch.tensor(plain_ranks(statistics.synapses.flatten().tolist())).view(3, 4).double()
    asked = context(statistics, weight)
    assert torch.allclose(STRENGTH.synapse_importance(asked), weight.abs() * ranks, rtol=1e-6)
    assert torch.allclose(STRENGTH.unit_importance(asked), weight.abs().mean(1), rtol=1e-12)


def test_the_dead_are_worth_nothing_and_change_no_rank():
    statistics, weight = observed(), rand(3, 4, seed=7) - 0.5
    weight[:, 1] = 0
    weight[2] = 0
    asked = context(statistics, weight)
    synapses, units = STRENGTH.synapse_importance(asked), STRENGTH.unit_importance(asked)
    assert not synapses[:, 1].any()
    assert not synapses[2].any()
    assert units[2] == 0
    alive, features = torch.tensor([0, 1]), torch.tensor([0, 2, 3])
    statistics.keep(alive, features)
    compact = context(statistics, weight[alive][:, features])
    assert torch.equal(STRENGTH.synapse_importance(compact), synapses[alive][:, features])
    # the mean over fewer weights is a common factor
    assert torch.allclose(STRENGTH.unit_importance(compact) * 3 / 4, units[alive], rtol=1e-12)
