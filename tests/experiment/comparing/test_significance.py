import math
from dataclasses import replace

import pytest

from dpap.experiment.comparing.significance import STUDENT_T, difference, groups
from support.comparison import made


def test_intervals_by_hand() -> None:
    # values 1, 2, 3: deviation 1, margin 4.303 / sqrt(3) = 2.484, above the mean of 2
    tie = difference([1.0, 2.0, 3.0])
    assert (tie.mean, tie.deviation, tie.verdict) == (2.0, 1.0, "tie")
    assert tie.margin == pytest.approx(2.4843, abs=1e-4)
    # two pairs more: deviation sqrt(0.5), margin 2.776 * 0.7071 / sqrt(5) = 0.8779
    better = difference([1.0, 2.0, 3.0, 2.0, 2.0])
    assert better.margin == pytest.approx(0.8779, abs=1e-4)
    assert better.verdict == "better"
    assert difference([-1.0, -2.0, -3.0, -2.0, -2.0]).verdict == "worse"
    assert difference([0.0, 0.0]).verdict == "tie"
    one = difference([0.5])
    assert (one.deviation, one.margin, one.verdict) == (None, None, "n = 1")
    with pytest.raises(ValueError, match="at least one pair"):
        difference([])


def test_quantiles_hold_half_of_the_density_less_a_fortieth() -> None:
    for freedom, quantile in enumerate(STUDENT_T, 1):
        steps = 20_000
        width = quantile / steps
        constant = math.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi) / math.gamma(freedom / 2)
        share = width * math.fsum(
            constant * (1 + ((i + 0.5) * width) ** 2 / freedom) ** (-(freedom + 1) / 2) for i in range(steps)
        )
        assert share == pytest.approx(0.475, abs=1e-4)


def test_differences_are_paired_by_seed_and_the_best_of_a_target_is_marked_with_its_ties() -> None:
    results = [
        *(made("dense", seed, 0.90 + 0.1 * seed / 10, seconds=4.0) for seed in (0, 1, 2)),
        *(made("dpap", seed, 0.91 + 0.1 * seed / 10, 0.6, seconds=3.0) for seed in (0, 1, 2)),
        *(made("stdp", seed, 0.90 + noise, 0.6) for seed, noise in enumerate((0.02, 0.0, 0.03))),
        *(made("random", seed, 0.80 + 0.1 * seed / 10, 0.6) for seed in (0, 1, 2)),
        *(made("hebb", seed, 0.99, 0.6, achieved=0.4) for seed in (0, 1, 2)),
        *(made("dpap", seed, 0.85, 0.9) for seed in (0, 1)),
    ]
    table = groups(results)["digits"]
    assert [(group.first.method, group.first.target, group.best) for group in table] == [
        ("dense", None, False),
        ("dpap", 0.6, True),
        ("stdp", 0.6, True),
        ("random", 0.6, False),
        ("hebb", 0.6, False),
        ("dpap", 0.9, False),
    ]
    dense, dpap, _, random, hebb, further = table
    assert dense.to_dense is None
    assert dpap.to_dense is not None and dpap.to_dense.mean == pytest.approx(0.01)
    assert dpap.to_dense.verdict == "better"
    assert random.to_dense is not None and random.to_dense.verdict == "worse"
    assert hebb.missed and not dpap.missed
    assert dpap.time == 0.75
    assert further.to_dense is not None and further.to_dense.values == pytest.approx((-0.05, -0.06))


def test_one_seed_ties_with_nothing_but_its_equal() -> None:
    results = [
        made("dense", 0, 0.9),
        made("dpap", 0, 0.9, 0.5),
        made("stdp", 0, 0.89, 0.5),
        made("hebb", 0, 0.9, 0.5),
    ]
    assert [group.best for group in groups(results)["digits"]] == [False, True, False, True]


def test_without_a_dense_twin_there_is_no_difference() -> None:
    (group,) = groups([made("dpap", 0, 0.9, 0.5)])["digits"]
    assert group.to_dense is None and group.time is None and group.deviation(lambda run: run.accuracy) is None


def test_shares_of_different_things_are_not_compared_with_each_other() -> None:
    results = [made("dense", 0, 0.9)]
    for method, of, reached in (
        ("dpap", "weights", 0.8),
        ("dpap", "macs", 0.9),
        ("units_random", "macs", 0.7),
    ):
        results.append(replace(made(method, 0, reached, 0.5), target_of=of))
    table = groups(results)["digits"]
    assert [(group.first.method, group.target, group.best) for group in table] == [
        ("dense", (None, "weights"), False),
        ("dpap", (0.5, "weights"), False),
        ("dpap", (0.5, "macs"), True),
        ("units_random", (0.5, "macs"), False),
    ]
