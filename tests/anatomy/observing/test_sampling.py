"""Steps that are observed: often enough, and all alike in loops of whatever period."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpap.anatomy.observing.sampling import StepSampler


@pytest.mark.parametrize("every", [2, 3, 4, 6, 10])
@pytest.mark.parametrize("period", [2, 3, 4, 5, 8, 12])
def test_every_part_of_a_loop_that_repeats_is_met_alike(every: int, period: int) -> None:
    sampler, met = StepSampler(every), Counter()
    for step in range(200 * every * period):
        if sampler.take():
            met[step % period] += 1
    assert set(met) == set(range(period))
    assert min(met.values()) > 0.85 * max(met.values())


@pytest.mark.parametrize("length", [8, 12])
def test_epochs_of_two_tasks_in_turn_meet_both_alike(length: int) -> None:
    sampler, met = StepSampler(4), Counter()
    for _ in range(60):
        for step in range(length):
            if sampler.take():
                met[step % 2] += 1
        sampler.begin_epoch()
    assert min(met.values()) > 0.85 * max(met.values())


@given(every=st.integers(1, 9), lengths=st.lists(st.integers(0, 40), max_size=8))
def test_one_in_each_block_is_taken_and_the_first_block_whole(every: int, lengths: list[int]) -> None:
    sampler = StepSampler(every)
    for length in lengths:
        taken = []
        for _ in range(length):
            expected = sampler.takes_next
            taken.append(sampler.take())
            assert taken[-1] is expected
        assert all(taken[:every])
        blocks = [taken[start : start + every] for start in range(every, length, every)]
        assert all(sum(block) == 1 for block in blocks if len(block) == every)
        sampler.begin_epoch()


@given(every=st.integers(1, 6), before=st.integers(0, 30), epochs=st.integers(0, 3))
def test_it_goes_on_from_its_state(every: int, before: int, epochs: int) -> None:
    one, other = StepSampler(every), StepSampler(every)
    for _ in range(epochs):
        for _ in range(before):
            one.take()
        one.begin_epoch()
    for _ in range(before):
        one.take()
    other.load_state(one.state())
    assert [one.take() for _ in range(50)] == [other.take() for _ in range(50)]


def test_a_step_is_taken_again() -> None:
    sampler = StepSampler(4)
    while not (sampler.steps > 4 and sampler.takes_next):
        sampler.take()
    assert sampler.take()
    sampler.again()
    assert sampler.takes_next


def test_of_those_that_are_taken_a_share_is_counted() -> None:
    sampler = StepSampler(4)
    counted = [sampler.takes_also(2) for _ in range(4000) if sampler.take()]
    assert all(counted[:4])
    assert 0.45 < sum(counted) / len(counted) < 0.55
