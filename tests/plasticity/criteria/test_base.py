"""What all criteria have in common."""

import math

import pytest
import torch

from dpap.plasticity import CRITERIA, running_traces, timestep_importance
from dpap.testing import check_criterion
from support.context import context, rand, spikes

of_all = pytest.mark.parametrize("name", CRITERIA)


def blank(name, **kinds):
    return CRITERIA[name].blank(3, 4, **{"synapses": True, "dtype": torch.float64, **kinds})


@of_all
def test_it_passes_the_battery(name):
    check_criterion(name)


@of_all
def test_sums_that_are_not_kept_are_refused(name):
    if name != "magnitude":
        with pytest.raises(ValueError, match="synapses=True"):
            CRITERIA[name].synapse_importance(context(blank(name, synapses=False)))
    with pytest.raises(ValueError, match="timesteps=T"):
        CRITERIA[name].timestep_importance(context(blank(name, synapses=False)))


@pytest.mark.parametrize(
    "name", [name for name, rule in CRITERIA.items() if rule.observes_timesteps and name != "firing_rate"]
)
def test_importance_of_timesteps_is_equation_8(name):
    statistics, expected = blank(name, timesteps=2), torch.zeros(2, 3).double()
    for seed in range(2):
        pre, post = spikes(2, 5, 4, seed=seed), spikes(2, 5, 3, seed=seed + 5)
        CRITERIA[name].observe(statistics, pre, post, 0.5)
        expected += timestep_importance(running_traces(pre, 0.5).sum(2), post)
    assert torch.equal(CRITERIA[name].timestep_importance(context(statistics)), expected)


@pytest.mark.parametrize("name", [name for name in CRITERIA if name != "released"])
def test_sums_are_of_one_epoch(name):
    criterion = CRITERIA[name]
    statistics, fresh = blank(name, timesteps=2), blank(name, timesteps=2)
    criterion.observe(statistics, rand(2, 2, 4), rand(2, 2, 3), 0.5)
    criterion.begin_interval(statistics)
    fresh.threshold, fresh.samples = statistics.threshold.clone(), statistics.samples
    for one in (statistics, fresh):
        criterion.observe(one, rand(2, 2, 4, seed=1), rand(2, 2, 3, seed=2), 0.5)
    assert torch.equal(statistics.units, fresh.units) and torch.equal(statistics.synapses, fresh.synapses)


@pytest.mark.parametrize("name", [name for name in CRITERIA if name != "released"])
def test_survival_moves_by_the_equations(name):
    importance, alive = torch.tensor([0.0, 1.0, 2.0, 9.0]), torch.tensor([False, True, True, True])
    assert CRITERIA[name].normalise(importance, alive).tolist() == [0, 0, 0.125, 1]
    assert CRITERIA[name].decay(6, 12.0) == math.exp(-0.5)
    assert not CRITERIA[name].strict
