import torch

from dpap.plasticity import CRITERIA
from support.context import context, rand

ONCE, ANEW = CRITERIA["random_once"], CRITERIA["random"]


def drawn(criterion, statistics, **given):
    asked = context(statistics, **given)
    return [
        criterion.unit_importance(asked).clone(),
        criterion.synapse_importance(asked).clone(),
        criterion.timestep_importance(asked).clone(),
    ]


def blank(units=6):
    return ONCE.blank(units, 4, synapses=True, timesteps=3)


def next_epoch(statistics):
    ONCE.begin_interval(statistics)
    ONCE.observe(statistics, rand(3, 2, 4), rand(3, 2, statistics.units.numel()), 0.5)


def test_the_first_draw_is_that_of_random_importance():
    for one, other in zip(drawn(ONCE, blank(), epoch=2), drawn(ANEW, blank(), epoch=2), strict=True):
        assert torch.equal(one, other)


def test_it_is_kept_whatever_happens():
    statistics = blank()
    first = drawn(ONCE, statistics, epoch=1)
    next_epoch(statistics)
    for one, other in zip(first, drawn(ONCE, statistics, epoch=2), strict=True):
        assert torch.equal(one, other)


def test_it_follows_the_units_through_removal_and_a_checkpoint():
    statistics = blank()
    units, synapses, timesteps = drawn(ONCE, statistics, epoch=1)
    kept = torch.tensor([1, 4, 5])
    statistics.keep(kept, torch.tensor([0, 3]))
    fresh = ONCE.blank(3, 2, synapses=True, timesteps=3)
    fresh.load_state_dict(statistics.state_dict())
    for each in (statistics, fresh):
        next_epoch_units = drawn(ONCE, each, epoch=3)
        assert torch.equal(next_epoch_units[0], units[kept])
        assert torch.equal(next_epoch_units[1], synapses[kept][:, [0, 3]])
        assert torch.equal(next_epoch_units[2], timesteps[:, kept])
