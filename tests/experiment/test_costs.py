"""What a run records of its networks' latency."""

from typing import Any

import pytest
import torch

from dpap.experiment import costs


def test_quartiles_of_the_latency_lie_within_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "example_of", lambda *given, **named: torch.zeros(1))
    monkeypatch.setattr(costs, "latencies", lambda models, example: [[1.0, 6.0]])
    data: Any = None
    (record,) = costs.latency_records([torch.nn.Identity()], data, torch.device("cpu"))
    assert record == {"latency_low": 2.25, "latency_seconds": 3.5, "latency_high": 4.75}
