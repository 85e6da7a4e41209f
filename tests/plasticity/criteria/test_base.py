"""What all criteria have in common, and the registry that names them."""

import math
from typing import get_args, get_type_hints

import pytest
import torch

from dpap.plasticity import CRITERIA, running_traces, timestep_importance
from dpap.pruning.config import PruningConfig
from support.context import context, rand, spikes

of_all = pytest.mark.parametrize("name", CRITERIA)


def blank(name, **kinds):
    return CRITERIA[name].blank(3, 4, **{"synapses": True, "dtype": torch.float64, **kinds})


def test_the_configuration_names_what_there_is():
    assert get_args(get_type_hints(PruningConfig)["criterion"]) == tuple(CRITERIA)


@of_all
def test_what_is_not_remembered_cannot_be_asked(name):
    statistics = blank(name, synapses=False)
    with pytest.raises(ValueError, match="synapses=True"):
        CRITERIA[name].synapse_importance(context(statistics))
    with pytest.raises(ValueError, match="timesteps=T"):
        CRITERIA[name].timestep_importance(context(statistics))


@of_all
def test_units_are_judged_alike_whether_or_not_their_synapses_are(name):
    whole, rows = blank(name), blank(name, synapses=False)
    weight = rand(3, 4, seed=9)
    for seed in range(3):
        for statistics in (whole, rows):
            CRITERIA[name].observe(statistics, rand(2, 2, 4, seed=seed), rand(2, 2, 3, seed=seed + 9), 0.5)
    of_whole, of_rows = (
        CRITERIA[name].unit_importance(context(statistics, weight)) for statistics in (whole, rows)
    )
    assert torch.allclose(of_whole, of_rows, rtol=1e-12)
    assert of_whole.shape == (3,) and len(of_whole.unique()) > 1


@of_all
def test_importance_has_the_shape_of_what_can_die(name):
    statistics = blank(name, timesteps=2)
    CRITERIA[name].observe(statistics, rand(2, 2, 4), rand(2, 2, 3), 0.5)
    asked = context(statistics, rand(3, 4))
    assert CRITERIA[name].synapse_importance(asked).shape == (3, 4)
    assert CRITERIA[name].timestep_importance(asked).shape == (2, 3)
    for importance in (CRITERIA[name].unit_importance(asked), CRITERIA[name].timestep_importance(asked)):
        assert importance.dtype == torch.float64


@pytest.mark.parametrize(
    "name", [name for name in CRITERIA if name not in ("random", "random_once", "firing_rate")]
)
def test_timesteps_are_judged_by_equation_8(name):
    statistics, expected = blank(name, timesteps=2), torch.zeros(2, 3).double()
    for seed in range(2):
        pre, post = spikes(2, 5, 4, seed=seed), spikes(2, 5, 3, seed=seed + 5)
        CRITERIA[name].observe(statistics, pre, post, 0.5)
        expected += timestep_importance(running_traces(pre, 0.5).sum(2), post)
    assert torch.equal(CRITERIA[name].timestep_importance(context(statistics)), expected)


@of_all
def test_observing_needs_neither_gradients_nor_full_precision(name):
    statistics = CRITERIA[name].blank(1, 2, synapses=True)
    exact = CRITERIA[name].blank(1, 2, synapses=True, dtype=torch.float64)
    pre = torch.full((1, 1, 2), 129.0, dtype=torch.bfloat16, requires_grad=True)
    post = torch.full((1, 1, 1), 129.0, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        CRITERIA[name].observe(statistics, pre, post, 0.5)
    CRITERIA[name].observe(exact, pre.detach().double(), post.detach().double(), 0.5)
    for tensor, theirs in ((statistics.synapses, exact.synapses), (statistics.units, exact.units)):
        assert not tensor.requires_grad and tensor.dtype == torch.float32
        assert torch.allclose(tensor.double(), theirs, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", [name for name in CRITERIA if name != "released"])
def test_sums_are_of_one_epoch(name):
    criterion = CRITERIA[name]
    statistics, fresh = blank(name, timesteps=2), blank(name, timesteps=2)
    criterion.observe(statistics, rand(2, 2, 4), rand(2, 2, 3), 0.5)
    criterion.begin_epoch(statistics)
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
