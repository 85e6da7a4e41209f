"""Runs that are interrupted, and whether two of them came to the same."""

import json
from pathlib import Path
from typing import Any

import torch

from dpap.experiment.checkpoint import read_checkpoint
from dpap.experiment.progress import Quiet

TIMES = {
    "seconds", "evaluate_seconds", "prune_seconds", "latency_low", "latency_seconds", "latency_high",
    "seconds_training", "finished",
}  # fmt: skip


class StopAt(Quiet):
    """Ctrl-C in the middle of an epoch."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.when, self.epoch = (epoch, batch), 0

    def begin_epoch(self, epoch: int, epochs: int, batches: int) -> None:
        self.epoch = epoch

    def batch(self, done: int) -> None:
        if (self.epoch, done) == self.when:
            raise KeyboardInterrupt


def timeless(record: Any) -> Any:
    if isinstance(record, dict):
        return {key: timeless(value) for key, value in record.items() if key not in TIMES | {"compacted"}}
    return [timeless(each) for each in record] if isinstance(record, list) else record


def tensors(state: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(state, dict | list):
        return {prefix: state}
    items = state.items() if isinstance(state, dict) else enumerate(state)
    return {name: leaf for key, value in items for name, leaf in tensors(value, f"{prefix}.{key}").items()}


def same_bits(one: Path, other: Path) -> None:
    ours, theirs = (tensors(read_checkpoint(path / "checkpoint.pt")) for path in (one, other))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, theirs[name]), name
        elif name in (".records", ".survival"):
            assert timeless(json.loads(value)) == timeless(json.loads(theirs[name])), name
        elif name not in (".config.out", ".config.structure"):
            assert value == theirs[name], name
