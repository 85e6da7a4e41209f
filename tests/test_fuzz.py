"""A few of the inputs of `benchmarks/reliability/fuzz.py`, of every kind; that reads 100,000."""

import importlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "reliability"
INPUTS = {"recipe": 8}  # of which each takes a tenth of a second
FURTHER = 40
KINDS = (
    *(
        "IDX",
        "IDX, gzip",
        "CIFAR",
        "N-MNIST",
        "AEDAT",
        "frames",
        "model, spiking",
        "model, plain",
        "model, recurrent",
        "model, sparse",
    ),
    *("state", "checkpoint", "tables", "run", "recipe"),
    *("pictures", "pictures, resized", "arrays"),
)


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module("fuzz")
    for name in ("fuzz", "fuzz_kinds", "fuzz_mutations", "fuzz_runs", "fuzz_single"):
        sys.modules.pop(name, None)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded as Linux does it")
@pytest.mark.parametrize("name", KINDS)
def test_no_file_crashes_a_reader(fuzz: Any, tmp_path: Path, name: str) -> None:
    kind = fuzz.KINDS[name]()
    kind.write(tmp_path)
    kind.read(tmp_path)
    came: Counter[str] = Counter()
    for number in range(INPUTS.get(name, FURTHER)):
        outcome, shown = fuzz.outcome(kind, tmp_path, number, seed=1)
        assert outcome in ("refused", "read"), f"input {number}: {outcome}: {shown}"
        came[outcome] += 1
    assert came["refused"] or name == "frames"
