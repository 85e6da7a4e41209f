import pytest
import torch

from dpap.metrics.alternating import alternate, compared

CPU = torch.device("cpu")


def test_each_runs_once_a_round_beginning_with_another_one() -> None:
    calls: list[str] = []
    seconds = alternate({name: lambda name=name: calls.append(name) for name in "ab"}, 2, CPU)  # type: ignore[misc]
    assert "".join(calls) == "abba" * 2  # two rounds before those that are measured
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}


def test_mixed_each_runs_twice_in_a_row_in_a_random_order() -> None:
    calls: list[str] = []
    run = {name: lambda name=name: calls.append(name) for name in "abc"}  # type: ignore[misc]
    seconds = alternate(run, 20, CPU, mixed=True)
    assert calls[::2] == calls[1::2]
    rounds = ["".join(calls[::2][k : k + 3]) for k in range(0, 66, 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 3
    assert {len(times) for times in seconds.values()} == {20}


def test_ratios_are_taken_within_a_round() -> None:
    summary = compared({"dense": [1.0, 10.0, 4.0], "compact": [0.5, 5.0, 1.0]}, "dense")
    assert summary["compact"]["ratio"] == 2.0
    assert summary["compact"]["milliseconds"] == 1000.0
    assert summary["dense"] | {"low": 1.0, "high": 1.0, "ratio": 1.0, "n": 3} == summary["dense"]
    assert summary["compact"]["high"] == pytest.approx(3.0)


def test_quartiles_lie_within_what_was_measured() -> None:
    """Speed-ups of 1 and 6; the quartiles of a population that two rounds were drawn from would be -0.25 and 7.25."""
    summary = compared({"dense": [1.0, 1.0], "compact": [1.0, 1 / 6]}, "dense")
    assert (summary["compact"]["low"], summary["compact"]["high"]) == (
        pytest.approx(2.25),
        pytest.approx(4.75),
    )
