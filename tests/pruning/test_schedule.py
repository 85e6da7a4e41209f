"""When how much should be pruned."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpap.pruning.schedule import scheduled_share


@given(st.floats(0, 0.99), st.integers(1, 40), st.integers(0, 5))
def test_it_is_steep_first_then_level_and_ends_at_the_target(target: float, length: int, start: int) -> None:
    shares = [
        scheduled_share(target, float(step), start, start + length) for step in range(start + length + 3)
    ]
    assert shares[: start + 1] == [0.0] * (start + 1)
    assert shares[start + length :] == pytest.approx([target] * 3)
    steps = [after - before for before, after in zip(shares[start:], shares[start + 1 :], strict=False)]
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(steps))
    assert min(steps) >= -1e-12


def test_within_an_epoch_it_lies_between_the_ends() -> None:
    early, middle, late = (scheduled_share(0.9, step, 2, 8) for step in (4.0, 4.5, 5.0))
    assert early < middle < late
