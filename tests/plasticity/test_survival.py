import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from dpap.plasticity import (
    critical_epsilon,
    exponential_decay,
    normalise,
    ranked,
    staircase_decay,
    survival_change,
    update_survival,
)

# Small integers and quarters make ties, as silent units do.
values = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6, allow_subnormal=False))


@st.composite
def layers(draw):
    importance = draw(st.lists(values, min_size=1, max_size=12))
    alive = draw(st.lists(st.booleans(), min_size=len(importance), max_size=len(importance)))
    return torch.tensor(importance, dtype=torch.float64), torch.tensor(alive)


quantiles = st.sampled_from([0.75, 1.0])


@given(layers(), quantiles)
def test_normalised_lies_in_the_unit_interval_and_the_dead_are_zero(layer, quantile):
    importance, alive = layer
    result = normalise(importance, alive, quantile)
    assert result.min() >= 0
    assert result.max() <= 1
    assert not result[~alive].any()


@given(layers(), quantiles)
def test_normalise_agrees_with_numpy(layer, quantile):
    importance, alive = layer
    assume(alive.any())
    values = importance[alive].numpy()
    low, high = values.min(), np.quantile(values, quantile)
    slow = np.full_like(values, 0.5) if high == low else np.clip((values - low) / (high - low), 0, 1)
    assert np.allclose(normalise(importance, alive, quantile)[alive].numpy(), slow, rtol=1e-12, atol=1e-12)


@given(layers(), quantiles, st.randoms(use_true_random=False))
def test_normalise_follows_a_permutation_and_ignores_the_dead(layer, quantile, random):
    importance, alive = layer
    order = torch.tensor(random.sample(range(len(alive)), len(alive)))
    result = normalise(importance, alive, quantile)
    assert torch.equal(normalise(importance[order], alive[order], quantile), result[order])
    haunted = torch.where(alive, importance, math.nan)
    assert torch.equal(normalise(haunted, alive, quantile), result)


@given(
    st.lists(st.integers(-1000, 1000), min_size=1, max_size=12),
    quantiles,
    st.sampled_from([0.25, 0.5, 2.0, 8.0]),
    st.integers(-50, 50),
)
def test_normalise_ignores_scale_and_offset(importance, quantile, scale, offset):
    importance = torch.tensor(importance, dtype=torch.float64)
    alive = torch.ones_like(importance, dtype=torch.bool)
    moved = normalise(importance * scale + offset, alive, quantile)
    assert torch.allclose(moved, normalise(importance, alive, quantile), rtol=0, atol=1e-12)


@given(layers())
def test_ranked_counts_the_alive_below_and_half_of_its_equals(layer):
    importance, alive = layer
    values = importance[alive].tolist()
    others = max(len(values) - 1, 1)
    slow = [
        (sum(other < each for other in values) + (sum(other == each for other in values) - 1) / 2) / others
        for each in values
    ]
    if len(values) == 1:
        slow = [0.5]
    result = ranked(importance, alive)
    assert np.allclose(result[alive].numpy(), slow, rtol=0, atol=1e-12)
    assert not result[~alive].any()


@given(layers())
def test_ranked_ignores_every_increasing_map_and_what_the_dead_hold(layer):
    importance, alive = layer
    bent = torch.where(importance > 0, importance * 8, importance / 2)
    haunted = torch.where(alive, bent, math.nan)
    assert torch.equal(ranked(haunted, alive), ranked(importance, alive))


@pytest.mark.parametrize("mapped", [normalise, ranked])
def test_what_is_not_finite_is_refused_only_of_what_is_alive(mapped):
    importance = torch.tensor([1.0, math.inf, 2.0])
    mapped(importance, torch.tensor([True, False, True]))
    with pytest.raises(ValueError, match="lower the learning rate"):
        mapped(importance, torch.tensor([True, True, True]))


def test_normalise_of_matrices_ties_and_nothing_alive():
    importance = torch.tensor([[0.0, 1.0], [2.0, 4.0]])
    everyone = torch.ones(2, 2, dtype=torch.bool)
    assert torch.equal(normalise(importance, everyone), importance / 4)
    assert torch.equal(normalise(importance, everyone, 0.75), importance.clamp(max=2.5) / 2.5)
    some = torch.tensor([[False, True], [False, False]])
    assert torch.equal(normalise(importance, some), 0.5 * some)
    assert torch.equal(normalise(importance, ~everyone), torch.zeros(2, 2))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_importance_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="1 of 2 alive"):
        normalise(torch.tensor([1.0, bad]), torch.tensor([True, True]))


def test_growth_protects_what_is_useful():
    normalised = torch.tensor([0.0, 0.25, 0.5, 1.0])
    assert torch.equal(survival_change(normalised, 1.0, 5.0), torch.tensor([-1.0, -0.5, 5.0, 6.0]))
    assert torch.equal(
        survival_change(normalised, 1.0, 5.0, strict=True), torch.tensor([-1.0, -0.5, 0.0, 6.0])
    )


def test_survive_is_equation_11():
    assert update_survival(torch.tensor([2.0]), torch.tensor([-1.0]), 0.5, 0.25).item() == 0.75


def test_decays():
    assert exponential_decay(0, 12.0) == 1
    assert exponential_decay(24, 12.0) == math.exp(-2)
    assert [staircase_decay(epoch, 12.0, 5) for epoch in (0, 5, 16, 17, 29)] == [
        1,
        1,
        1,
        *map(math.exp, (-1, -2)),
    ]


shares = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1))
survivals = st.one_of(st.just(0.0), st.floats(1e-6, 20))


@given(
    shares,
    survivals,
    st.floats(0, 4),
    st.one_of(st.just(0.0), st.floats(0, 5)),
    st.floats(0.1, 1),
    st.floats(1e-6, 1),
    st.booleans(),
)
def test_a_unit_dies_exactly_above_its_critical_epsilon(
    normalised, survival, epsilon, protection, gamma, decay, strict
):
    normalised = torch.tensor([normalised], dtype=torch.float64)
    survival = torch.tensor([survival], dtype=torch.float64)
    critical = critical_epsilon(normalised, survival, gamma, decay).item()
    assume(abs(epsilon - critical) > 1e-9 * max(1, critical))
    after = update_survival(survival, survival_change(normalised, epsilon, protection, strict), gamma, decay)
    assert (after.item() < 0) == (epsilon > critical)


@given(shares, survivals, st.floats(0.1, 1), st.floats(1e-6, 1), st.floats(0, 5), st.booleans())
def test_just_beside_the_critical_epsilon(normalised, survival, gamma, decay, protection, strict):
    normalised = torch.tensor([normalised], dtype=torch.float64)
    survival = torch.tensor([survival], dtype=torch.float64)
    critical = critical_epsilon(normalised, survival, gamma, decay).item()
    step = 1e-9 * max(1, critical)
    for epsilon, can_die in ((critical - step, False), (critical + step, True)):
        after = update_survival(
            survival, survival_change(normalised, epsilon, protection, strict), gamma, decay
        )
        assert (after.item() < 0) == can_die


def test_without_decay_nothing_dies():
    assert critical_epsilon(torch.zeros(2), torch.tensor([0.0, 1.0]), 0.999, 0.0).tolist() == [math.inf] * 2
