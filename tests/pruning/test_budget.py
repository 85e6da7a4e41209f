"""The budget chooses how much dies; the order of death stays that of the critical shifts."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dpap.anatomy import Wiring, find_wiring
from dpap.models import NetworkConfig, build_network
from dpap.pruning.budget import (
    TOLERANCE,
    CriticalShifts,
    after_deaths,
    dead_timesteps,
    dead_weights,
    solve,
)
from dpap.surgery import Masks


def _network(layers: str = "6C3-AvgPool2-8C3-20FC-3FC") -> tuple[Wiring, Masks, int]:
    model = build_network(NetworkConfig(layers=layers, timesteps=4), (1, 8, 8), 3)
    wiring = find_wiring(model, (torch.rand(2, 1, 8, 8),))
    masks = Masks.all_alive(wiring, synapses=True, timesteps=True)
    return wiring, masks, sum(weights for _, weights in masks.weights(wiring).values())


WIRING, ALL_ALIVE, DENSE_WEIGHTS = _network()
DENSE = {name: weights for name, (_, weights) in ALL_ALIVE.weights(WIRING).items()}


def _critical(seed: int, levels: int | None = None) -> CriticalShifts:
    """Random critical shifts, of few different values where ties are wanted."""
    generator = torch.Generator().manual_seed(seed)

    def values(like: Tensor) -> Tensor:
        drawn = torch.rand(like.shape, generator=generator) * 3 - 1
        return drawn if levels is None else (drawn * levels).round() / levels

    return CriticalShifts(
        {name: values(alive) for name, alive in ALL_ALIVE.units.items()},
        {name: values(alive) for name, alive in ALL_ALIVE.synapses.items()},
        {},
    )


def _share(masks: Masks) -> float:
    return dead_weights(WIRING, masks, DENSE)


@given(st.integers(0, 1000), st.floats(0.02, 0.9), st.sampled_from([None, 1, 3]))
@settings(max_examples=30)
def test_a_target_is_met_even_with_ties(seed: int, goal: float, levels: int | None) -> None:
    critical = _critical(seed, levels)
    critical.break_ties(seed)
    critical.spare_strongest(ALL_ALIVE, critical.units, dict.fromkeys(ALL_ALIVE.units, 2))
    shift, masks = solve(ALL_ALIVE, critical, _share, goal, exact=True)
    assert abs(_share(masks) - goal) <= 5 * TOLERANCE
    assert math.isfinite(shift)
    for alive in masks.units.values():
        assert alive.sum() >= 2


@given(st.integers(0, 1000), st.floats(0.02, 0.9))
@settings(max_examples=20)
def test_on_the_way_the_goal_is_never_overshot(seed: int, goal: float) -> None:
    critical = _critical(seed)
    critical.spare_strongest(ALL_ALIVE, critical.units, dict.fromkeys(ALL_ALIVE.units, 2))
    _, masks = solve(ALL_ALIVE, critical, _share, goal, exact=False)
    assert _share(masks) <= goal


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_with_more_shift_more_dies_and_the_weakest_first(seed: int) -> None:
    critical = _critical(seed)
    shares = [_share(after_deaths(ALL_ALIVE, critical, shift)) for shift in (-1.1, -0.5, 0.0, 0.5, 1.0)]
    assert shares[0] == 0 and shares == sorted(shares)
    masks = after_deaths(ALL_ALIVE, critical, 0.3)
    for name in ("conv1", "conv2"):
        assert torch.equal(masks.units[name], critical.units[name] >= 0.3)


def test_nothing_more_dies_where_the_goal_is_met_already() -> None:
    before = after_deaths(ALL_ALIVE, _critical(3), 0.5)
    shift, masks = solve(before, _critical(4), _share, _share(before) / 2, exact=True)
    assert shift == -math.inf and masks is before


def test_a_weight_is_dead_where_synapse_unit_or_source_is() -> None:
    masks = ALL_ALIVE.copy()
    masks.units["conv1"][:2] = False
    masks.units["fc1"][5:] = False
    masks.synapses["fc1"][0, :7] = False
    alive = masks.weights(WIRING)
    assert alive["conv1"] == (4 * 9, 6 * 9)
    assert alive["conv2"] == (8 * 4 * 9, 8 * 6 * 9)
    assert alive["fc1"] == (5 * 128 - 7, 20 * 128)
    assert alive["fc2"] == (5 * 3, 20 * 3)
    total = sum(left for left, _ in alive.values())
    assert dead_weights(WIRING, masks, DENSE) == pytest.approx(1 - total / DENSE_WEIGHTS)


def test_timesteps_are_counted_among_alive_units() -> None:
    masks = ALL_ALIVE.copy()
    masks.units["conv1"][3:] = False
    masks.timesteps["conv1"][:, 3:] = False
    masks.timesteps["conv1"][0] = False
    assert dead_timesteps(masks) == pytest.approx(3 / (4 * (3 + 8 + 20)))


@given(st.integers(0, 1000), st.floats(0.05, 0.7))
@settings(max_examples=20)
def test_every_alive_neuron_keeps_a_timestep(seed: int, goal: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    times = CriticalShifts(
        timesteps={
            n: torch.rand(alive.shape, generator=generator) for n, alive in ALL_ALIVE.timesteps.items()
        }
    )
    times.spare_strongest(ALL_ALIVE, {}, dict.fromkeys(ALL_ALIVE.units, 2))
    _, masks = solve(ALL_ALIVE, times, dead_timesteps, goal, exact=True)
    assert dead_timesteps(masks) == pytest.approx(goal, abs=0.02)
    assert all(alive.any(0).all() for alive in masks.timesteps.values())


@st.composite
def _partly_dead(draw: st.DrawFn) -> tuple[Masks, CriticalShifts]:
    """Some are dead already, the others have random critical shifts and are to keep round widths."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    dead = draw(st.floats(0, 0.6))
    masks = ALL_ALIVE.copy()
    for _, kind in masks.tensors():
        for alive in kind.values():
            alive &= torch.rand(alive.shape, generator=generator) >= dead
    for name, synapses in masks.synapses.items():
        masks.units[name] &= synapses.any(1)
    critical = _critical(draw(st.integers(0, 1000)), draw(st.sampled_from([None, 2])))
    critical.round_to = draw(st.integers(1, 9))
    for name, alive in masks.units.items():
        critical.units[name].masked_fill_(~alive, math.inf)
    return masks, critical


def _is_within(small: Masks, large: Masks) -> bool:
    pairs = zip(small.tensors(), large.tensors(), strict=True)
    return not any(
        (alive & ~kind[name]).any() for (_, few), (_, kind) in pairs for name, alive in few.items()
    )


@given(_partly_dead(), st.floats(-1, 2))
def test_round_widths_spare_the_best_of_the_dying(state: tuple[Masks, CriticalShifts], shift: float) -> None:
    masks, critical = state
    round_to, critical.round_to = critical.round_to, 1
    plain = after_deaths(masks, critical, shift)
    critical.round_to = round_to
    left = after_deaths(masks, critical, shift)
    assert _is_within(left, masks) and _is_within(plain, left)
    assert _is_within(after_deaths(masks, critical, shift + 0.3), left)
    for name, alive in left.units.items():
        width, before, wanted = int(alive.sum()), int(masks.units[name].sum()), int(plain.units[name].sum())
        assert width == min(math.ceil(wanted / round_to) * round_to, before)
        lasts = critical.units[name]
        if name in critical.synapses:
            assert left.synapses[name][alive].any(1).all()
            strongest = critical.synapses[name].masked_fill(~masks.synapses[name], -math.inf).amax(1)
            lasts = torch.minimum(lasts, strongest)
        spared, gone = alive & ~plain.units[name], masks.units[name] & ~alive
        if spared.any() and gone.any():
            assert lasts[spared].min() >= lasts[gone].max()


@given(_partly_dead(), st.floats(0.05, 0.75))
@settings(max_examples=40)
def test_targets_are_met_with_round_widths(state: tuple[Masks, CriticalShifts], goal: float) -> None:
    masks, critical = state
    critical.break_ties(1)
    critical.spare_strongest(masks, critical.units, dict.fromkeys(masks.units, 2))
    round_to, before = critical.round_to, {name: int(alive.sum()) for name, alive in masks.units.items()}
    share = _share(masks)
    _, left = solve(masks, critical, _share, goal, exact=True)
    assert _is_within(left, masks)
    for name, alive in left.units.items():
        width = int(alive.sum())
        assert width % round_to == 0 or width == before[name]
        assert width >= min(2, before[name])
    if share <= goal:
        # most weights are synapses of their own, which make up for what round widths spare
        assert abs(_share(left) - goal) <= 5 * TOLERANCE


def test_equals_are_decided_by_survival_then_index() -> None:
    wiring = find_wiring(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), (torch.rand(2, 3),))
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    critical = CriticalShifts({"0": torch.zeros(5)})
    critical.spare_strongest(
        masks, {"0": torch.tensor([0.0, 1.0, 3.0, 1.0, 1.0])}, dict.fromkeys(masks.units, 3)
    )
    assert torch.isinf(critical.units["0"]).tolist() == [False, True, True, True, False]
    share = partial(dead_weights, wiring, dense={"0": 15, "2": 10})
    _, left = solve(masks, critical, share, 0.99, exact=True)
    assert left.units["0"].tolist() == [False, True, True, True, False]
