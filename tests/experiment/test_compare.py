import csv
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import dpap.experiment.compare as module
from dpap.experiment.compare import Result, as_table, compare, spread
from dpap.experiment.errors import UserError
from dpap.experiment.run_folder import RunFolder, read_json, read_lines


def test_twins_over_seeds_and_targets(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(training={"epochs": 3}, pruning={"end_epoch": 2})
    folder = tmp_path / "all"
    results = compare(config, [0.4], [0, 1], folder)
    assert [(each.method, each.seed) for each in results] == [
        ("dense", 0),
        ("dpap-0.4", 0),
        ("dense", 1),
        ("dpap-0.4", 1),
    ]
    assert results[1].sparsity == pytest.approx(0.4, abs=0.02)
    assert results[1].parameters < results[0].parameters
    assert (
        folder / "dpap-0.4-seed0" / (folder / "dpap-0.4-seed0" / "twin").read_text().strip()
    ).resolve() == (folder / "dense-seed0").resolve()
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in rows] == [each.accuracy for each in results]
    assert rows[0]["target"] == ""
    best = read_json(RunFolder(folder / "dense-seed0").summary)["best_test_accuracy"]
    reached = [
        r["epoch"]
        for r in read_lines(folder / "dpap-0.4-seed0" / "metrics.jsonl")
        if r["test_accuracy"] >= best
    ]
    assert results[1].converged == (reached[0] if reached else None)

    def no_more(*_: Any, **__: Any) -> None:
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr(module, "train", no_more)
    assert compare(config, [0.4], [0, 1], folder) == results
    with pytest.raises(UserError, match="another configuration"):
        compare(replace(config, protocol="paper"), [0.4], [0], folder)


def test_mistakes_are_named(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one seed"):
        compare(tiny(), [], [], tmp_path)
    with pytest.raises(UserError, match=r"target.*\[0, 1\)"):
        compare(tiny(), [1.5], [0], tmp_path)


def made(method: str, seed: int, accuracy: float) -> Result:
    return Result(
        method=method,
        target=None,
        seed=seed,
        accuracy=accuracy,
        sparsity=0.5,
        timestep_sparsity=0.0,
        converged=None,
        parameters=1000,
        weights=900,
        macs=5000,
        synaptic_operations=100.0,
        picojoules=90.0,
        energy=1e-9,
        latency_seconds=1e-3,
        first_seconds=1.0,
        last_seconds=0.5,
        seconds=3.0,
        model_bytes=4000,
        run="x",
    )


def test_differences_are_paired_by_seed() -> None:
    results = [
        made("dense", 0, 0.90),
        made("dpap", 0, 0.91),
        made("dense", 1, 0.70),
        made("dpap", 1, 0.73),
    ]
    line = as_table(results).splitlines()[-1]
    assert "82.00 ± 12.73" in line
    assert f"+2.00 ± {statistics.stdev([1, 3]):.2f}" in line
    assert spread([0.5], 1) == "0.5"
