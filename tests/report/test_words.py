import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from dpap.report import words
from dpap.report.records import read_run


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (words.percent(0.6014), "60.1%"),
        (words.percent(None), "–"),
        (words.accuracy(0.98204), "98.20%"),
        (words.accuracy(float("nan")), "–"),
        (words.count(596535.0), "596,535"),
        (words.rounded(596535.0), "597k"),
        (words.rounded(999.0), "999"),
        (words.rounded(999_600.0), "1M"),
        (words.scaled(0.0012, "s"), "1.20 ms"),
        (words.scaled(2.08e-6, "J"), "2.08 µJ"),
        (words.scaled(123.4, "s"), "123 s"),
        (words.scaled(0.0, "J"), "0 J"),
        (words.duration(0.8), "0.80 s"),
        (words.duration(90.0), "90 s"),
        (words.duration(8000.0), "2 h 13 min"),
        (words.ratio(21.0, 60.0), "0.35×"),
        (words.ratio(1.0, 400.0), "0.0025×"),
        (words.ratio(1.0, 0.0), "–"),
    ],
)
def test_numbers_are_written_for_people(written: str, expected: str) -> None:
    assert written == expected


def test_headline_of_a_pruned_run(twins: Path) -> None:
    run = read_run(twins)
    assert run.summary is not None and run.twin is not None and run.twin.summary is not None
    told = words.headline(run)
    assert f"{100 * run.summary.sparsity:.1f}% of the weights died" in told
    assert f"{100 * run.summary.final_test_accuracy:.2f}%" in told
    assert f"{100 * run.twin.summary.final_test_accuracy:.2f}% of its dense twin" in told
    assert "251k of 597k parameters and 0.35× the synaptic operations of its twin" in told


def test_headline_says_only_what_is_recorded(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run("partial", finished=False))
    told = words.headline(run)
    assert "not finished" in told and "compact" not in told and "twin" not in told
    assert "nothing pruned" in words.headline(read_run(make_run("dense", dense=True)))
    assert "no epoch is finished" in words.headline(dataclasses.replace(run, epochs=()))


def test_convergence_is_the_first_epoch_that_reaches_the_twins_best(twins: Path) -> None:
    run = read_run(twins)
    assert run.twin is not None
    epochs = [dataclasses.replace(e, test_accuracy=0.9) for e in run.epochs]
    twin = dataclasses.replace(
        run.twin, epochs=(*epochs[:4], dataclasses.replace(epochs[4], test_accuracy=0.95))
    )
    faster = [*epochs[:2], dataclasses.replace(epochs[2], test_accuracy=0.96), *epochs[3:]]
    told = words.convergence(dataclasses.replace(run, epochs=tuple(faster), twin=twin))
    assert told == "dense twin’s best, 95.00% in its epoch 5: reached in epoch 3"
    slower = words.convergence(dataclasses.replace(run, epochs=tuple(epochs), twin=twin))
    assert slower is not None and slower.endswith("not reached")
    assert words.convergence(dataclasses.replace(run, twin=None)) is None
