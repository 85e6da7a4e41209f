"""Inputs of `benchmarks/reliability/fuzz.py`, of every kind; that reads 100,000.

Of each as many are read as fit into about a second. `DPAP_FUZZ=2500 python -m pytest tests/test_fuzz.py` reads 2,500 of
each.
"""

import importlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "reliability"
INPUTS = {
    **dict.fromkeys(("IDX", "IDX, gzip", "CIFAR", "tables", "arrays"), 250),
    **dict.fromkeys(("run", "pictures", "pictures, resized", "N-MNIST", "AEDAT", "frames", "checkpoint"), 80),
    **dict.fromkeys(("model, spiking", "model, plain", "model, recurrent", "model, sparse"), 40),
    **dict.fromkeys(("state", "plain"), 40),
    "recipe": 8,
    "grid": 3,
    "pruner state": 5,
    "run, deployed": 4,
    "run, to go on": 3,
}
"""How many are read of each kind."""
MODULES = ("fuzz", "fuzz_kinds", "fuzz_mutations", "fuzz_runs", "fuzz_single", "fuzz_states", "trials")


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module("fuzz")
    for name in MODULES:
        sys.modules.pop(name, None)


def test_every_kind_is_read(fuzz: Any) -> None:
    assert fuzz.KINDS.keys() == INPUTS.keys()


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded as Linux does it")
@pytest.mark.usefixtures("unchecked")
@pytest.mark.timeout(3600)  # of as many as are asked for
@pytest.mark.parametrize("name", INPUTS)
def test_no_file_crashes_a_reader(fuzz: Any, tmp_path: Path, name: str) -> None:
    kind = fuzz.KINDS[name]()
    kind.write(tmp_path)
    kind.read(tmp_path)
    came: Counter[str] = Counter()
    for number in range(int(os.environ.get("DPAP_FUZZ", INPUTS[name]))):
        outcome, shown = fuzz.outcome(kind, tmp_path, number, seed=1)
        assert outcome in ("refused", "read"), f"input {number}: {outcome}: {shown}"
        came[outcome] += 1
    assert came["refused"] or name == "frames"
