"""That benchmarks which reach into a pruner still run; in small, and without their times."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.parametrize("target_of", ["weights", "macs"])
def test_surgery_measures_every_part_of_pruning(monkeypatch, target_of):
    monkeypatch.syspath_prepend(BENCHMARKS)
    surgery = importlib.import_module("surgery")
    small = surgery.NETWORKS["mnist"][:2]
    monkeypatch.setitem(surgery.NETWORKS, "mnist", (*small, 2))
    seconds = surgery.prune("mnist", torch.device("cpu"), 1, target_of, surgery.EPOCHS, "auto")
    assert len(seconds["deaths"]) == surgery.EPOCHS - 1
    assert len(seconds["step"]) + len(seconds["removing step"]) == surgery.EPOCHS
    assert seconds["removing step"], "nothing was worth its removal"
    once = surgery.prune("mnist", torch.device("cpu"), 1, target_of, 1, "manual", paper=True)
    assert len(once["compact"]) == 1
    for name in ("surgery", "steps", "timing"):
        sys.modules.pop(name, None)
