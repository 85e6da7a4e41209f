from functools import partial

import pytest
import torch

from dpap.plasticity import CRITERIA, normalise
from support.context import context, rand

RANDOM = CRITERIA["random"]


def drawn(units=6, **given):
    statistics = RANDOM.blank(units, 4, synapses=True, timesteps=3)
    asked = context(statistics, **given)
    return [
        RANDOM.unit_importance(asked),
        RANDOM.synapse_importance(asked),
        RANDOM.timestep_importance(asked),
    ]


def test_the_same_seed_draws_the_same_whatever_was_observed():
    statistics = RANDOM.blank(6, 4, synapses=True, timesteps=3)
    RANDOM.observe(statistics, rand(3, 2, 4), rand(3, 2, 6), 0.5)
    torch.rand(5)
    assert torch.equal(RANDOM.unit_importance(context(statistics)), drawn()[0])
    assert torch.equal(RANDOM.timestep_importance(context(statistics)), drawn()[2])


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}, {"name": "fc2"}])
def test_another_seed_epoch_or_projection_draws_something_else(other):
    assert not any(torch.equal(one, two) for one, two in zip(drawn(), drawn(**other), strict=True))


def test_it_is_uniform():
    values = drawn(units=10_000)[0]
    assert values.min() >= 0 and values.max() < 1
    shares = torch.histc(values, 10, 0, 1) / len(values)
    assert (shares - 0.1).abs().max() < 0.02


def test_nothing_is_clipped():
    importance, alive = torch.tensor([0.0, 0.25, 0.5, 1.0]), torch.ones(4, dtype=torch.bool)
    clipped = partial(normalise, quantile=0.75)
    assert RANDOM.normalise(importance, alive, clipped).tolist() == importance.tolist()
