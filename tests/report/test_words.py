import dataclasses
from collections.abc import Callable
from pathlib import Path

from dpap.report import words
from dpap.report.records import read_run


def test_headline_of_a_pruned_run(twins: Path) -> None:
    run = read_run(twins)
    assert run.summary is not None and run.twin is not None and run.twin.summary is not None
    text = words.headline(run)
    assert f"{100 * run.summary.sparsity:.1f}% of the weights died" in text
    assert f"{100 * run.summary.final_test_accuracy:.2f}%" in text
    assert f"{100 * run.twin.summary.final_test_accuracy:.2f}% of its dense twin" in text
    assert "251k of 597k parameters and 0.35× the synaptic operations of its twin" in words.lead(run)


def test_the_headline_holds_only_what_is_recorded(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run("partial", finished=False))
    text = words.headline(run)
    assert "not finished" in text and "twin" not in text and words.lead(run) == ""
    assert "nothing pruned" in words.headline(read_run(make_run("dense", dense=True)))
    assert "no epoch is finished" in words.headline(dataclasses.replace(run, epochs=()))
    lost = words.headline(dataclasses.replace(read_run(make_run("whole")), epochs=()))
    assert "of the weights died" in lost and "metrics.jsonl, is missing" in lost


def test_the_machine_in_words(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run())
    facts = {"cpu": "EPYC", "cores": 2, "bfloat16": False, "tf32": True, "gpu": None}
    assert words.machine(dataclasses.replace(run, machine=facts)) == "EPYC, cores 2, no bfloat16, tf32"


def test_convergence_is_the_first_epoch_that_reaches_the_twins_best(twins: Path) -> None:
    run = read_run(twins)
    assert run.twin is not None
    epochs = [dataclasses.replace(e, test_accuracy=0.9) for e in run.epochs]
    twin = dataclasses.replace(
        run.twin, epochs=(*epochs[:4], dataclasses.replace(epochs[4], test_accuracy=0.95))
    )
    faster = [*epochs[:2], dataclasses.replace(epochs[2], test_accuracy=0.96), *epochs[3:]]
    text = words.convergence(dataclasses.replace(run, epochs=tuple(faster), twin=twin))
    assert text == "dense twin’s best, 95.00% in its epoch 5: reached in epoch 3"
    slower = words.convergence(dataclasses.replace(run, epochs=tuple(epochs), twin=twin))
    assert slower is not None and slower.endswith("not reached")
    assert words.convergence(dataclasses.replace(run, twin=None)) is None
