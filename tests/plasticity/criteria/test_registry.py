"""The registry of criteria: what may be registered, and that what is registered prunes."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

import dpap
from dpap.plasticity import CRITERIA
from dpap.testing import check_criterion


class Spread(dpap.Criterion):
    """What has incoming weights of all sizes is important."""

    observes = False

    def unit_importance(self, layer):
        return layer.weight().double().std(1, correction=0)

    def synapse_importance(self, layer):
        return layer.magnitudes()


class Activity(dpap.Criterion):
    """What is active in many samples is important."""

    def observe_units(self, sums, shown, statistics):
        sums += (shown.post > 0.5).sum((0, 1))

    def observe_synapses(self, sums, shown, statistics):
        sums += (shown.pre > 0.5).sum((0, 1))


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = dict(CRITERIA)
    yield
    CRITERIA.clear()
    CRITERIA.update(before)


@pytest.mark.parametrize("criterion", [Spread(), Activity()])
def test_a_criterion_of_the_user_is_configured_by_its_name_and_passes_the_battery(criterion):
    dpap.register_criterion("mine", criterion)
    assert dpap.PruningConfig(criterion="mine").criterion == "mine"
    check_criterion("mine")


def test_a_criterion_of_the_user_chooses_what_dies():
    class LastUnits(Spread):
        def unit_importance(self, layer):
            return torch.arange(len(layer.weight()), 0, -1).to(layer.statistics.units)

    dpap.register_criterion("last_units", LastUnits())
    model = nn.Sequential(nn.Linear(4, 20), nn.ReLU(), nn.Linear(20, 2))
    config = dpap.PruningConfig(
        criterion="last_units", synapses=False, target=0.5, end_epoch=1, start_epoch=0
    )
    pruner = dpap.Pruner(model, torch.rand(3, 4), None, config)
    pruner.step()
    alive = [value is not None for value in pruner.survival()["0"]]
    assert alive == [True] * 10 + [False] * 10


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match=r"'bcm' is registered already \(Bcm\)"):
        dpap.register_criterion("bcm", Spread())
    dpap.register_criterion("bcm", Spread(), replace=True)
    assert isinstance(CRITERIA["bcm"], Spread)


@pytest.mark.parametrize("name", ["", "two words", "1st", 3])
def test_a_name_is_a_word(name, unchecked):
    with pytest.raises(ValueError, match="the name of a criterion is a word"):
        dpap.register_criterion(name, Spread())


def test_only_criteria_are_registered(unchecked):
    with pytest.raises(TypeError, match=r"give Spread\(\)"):
        dpap.register_criterion("mine", Spread)
    with pytest.raises(TypeError, match=r"expects a dpap.Criterion; got Linear"):
        dpap.register_criterion("mine", nn.Linear(1, 1))


def test_what_a_criterion_must_define_is_named():
    class Observes(dpap.Criterion):
        def observe_units(self, sums, shown, statistics):
            sums += 1

    class Computes(dpap.Criterion):
        observes = False

    with pytest.raises(TypeError, match=r"Observes observes activity, so it must define observe_synapses$"):
        dpap.register_criterion("mine", Observes())
    with pytest.raises(TypeError, match="must define unit_importance and synapse_importance"):
        dpap.register_criterion("mine", Computes())
    assert "mine" not in CRITERIA
