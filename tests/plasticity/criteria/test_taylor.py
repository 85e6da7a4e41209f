"""Mean square contributions, against the formula."""

import torch

from dpap.plasticity import CRITERIA, Contribution
from support.context import context, rand

TAYLOR = CRITERIA["taylor"]


def _shown(seed: int) -> Contribution:
    return Contribution(
        rand(3, seed=seed) - 0.5, rand(3, 4, seed=seed + 1) - 0.5, rand(2, 3, seed=seed + 2) - 0.5
    )


def _blank():
    return TAYLOR.blank(3, 4, synapses=True, timesteps=2, dtype=torch.float64)


def test_importance_is_the_sum_of_squares() -> None:
    statistics = _blank()
    for seed in (0, 7):
        TAYLOR.observe_contribution(statistics, _shown(seed))
    layer, (first, second) = context(statistics), (_shown(0), _shown(7))
    assert torch.allclose(TAYLOR.unit_importance(layer), first.units**2 + second.units**2)
    assert torch.allclose(TAYLOR.synapse_importance(layer), first.synapses**2 + second.synapses**2)
    assert torch.allclose(TAYLOR.timestep_importance(layer), first.timesteps**2 + second.timesteps**2)


def test_opposite_signs_within_a_step_cancel_and_between_steps_do_not() -> None:
    statistics = _blank()
    for sign in (1, -1):
        TAYLOR.observe_contribution(statistics, Contribution(sign * torch.ones(3).double()))
    assert torch.equal(TAYLOR.unit_importance(context(statistics)), torch.full((3,), 2.0).double())


def test_memory_fades_what_was_observed_before() -> None:
    statistics = _blank()
    TAYLOR.observe_contribution(statistics, _shown(0))
    TAYLOR.begin_interval(statistics, 0.9)
    TAYLOR.observe_contribution(statistics, _shown(7))
    expected = 0.9 * _shown(0).units ** 2 + _shown(7).units ** 2
    assert torch.allclose(TAYLOR.unit_importance(context(statistics)), expected)
    TAYLOR.begin_interval(statistics, 0.0)
    assert not statistics.units.any() and not statistics.synapses.any() and not statistics.timesteps.any()


def test_activity_is_of_no_use_to_it() -> None:
    assert TAYLOR.observes_gradients and not (TAYLOR.observes or TAYLOR.observes_timesteps)
