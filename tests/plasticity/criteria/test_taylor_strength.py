"""Contributions of units, shared by squared weights, against plain loops."""

import torch

from dpap.plasticity import CRITERIA, Contribution
from support.context import context, rand

RULE = CRITERIA["taylor_strength"]


def _observed():
    statistics = RULE.blank(3, 4, synapses=True, timesteps=2, dtype=torch.float64)
    for seed in (0, 7):
        shown = Contribution(
            rand(3, seed=seed) - 0.5, rand(3, 4, seed=seed + 1) - 0.5, rand(2, 3, seed=seed + 2) - 0.5
        )
        RULE.observe_contribution(statistics, shown)
    return statistics


def test_a_synapse_has_the_share_of_its_squared_weight() -> None:
    statistics, weight = _observed(), rand(3, 4, seed=20) - 0.5
    found = RULE.synapse_importance(context(statistics, weight))
    for unit in range(3):
        total = sum(float(statistics.synapses[unit, feature]) for feature in range(4))
        squares = [float(weight[unit, feature]) ** 2 for feature in range(4)]
        for feature in range(4):
            expected = total * squares[feature] / sum(squares)
            torch.testing.assert_close(float(found[unit, feature]), expected, rtol=1e-12, atol=0.0)


def test_all_but_the_synapses_is_as_taylor_has_it() -> None:
    layer, taylor = context(_observed(), rand(3, 4, seed=20)), CRITERIA["taylor"]
    torch.testing.assert_close(RULE.synapse_importance(layer).sum(1), taylor.synapse_importance(layer).sum(1))
    assert torch.equal(RULE.unit_importance(layer), taylor.unit_importance(layer))
    assert torch.equal(RULE.timestep_importance(layer), taylor.timestep_importance(layer))


def test_dead_synapses_and_units_count_nothing() -> None:
    weight = rand(3, 4, seed=20) + 0.1
    weight[:, 1], weight[2] = 0, 0
    found = RULE.synapse_importance(context(_observed(), weight))
    assert not found[:, 1].any()
    assert not found[2].any()
    assert bool((found[:2, [0, 2, 3]] > 0).all())
