"""A run that takes a second: few digits, a narrow network, two timesteps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpap.data import DataConfig
from dpap.experiment.config import ExperimentConfig, TrainingConfig
from dpap.models import NetworkConfig
from dpap.pruning.config import PruningConfig

Make = Callable[..., ExperimentConfig]


@pytest.fixture
def tiny(tmp_path: Path) -> Make:
    """tiny(training={...}, **fields): a configuration that runs into a folder of the test."""

    def make(
        *,
        data: dict[str, Any] | None = None,
        network: dict[str, Any] | None = None,
        training: dict[str, Any] | None = None,
        pruning: dict[str, Any] | None = None,
        **fields: Any,
    ) -> ExperimentConfig:
        return ExperimentConfig(
            name="tiny",
            data=DataConfig(batch_size=32, train_limit=200, test_limit=60, **data or {}),
            network=NetworkConfig(
                **{"layers": "6C3-BN-AvgPool2-20FC-10FC", "timesteps": 2, **(network or {})}
            ),
            pruning=PruningConfig(
                **{
                    "target": 0.6,
                    "end_epoch": 3,
                    "compact": "auto",
                    "observe_every": 1,
                    "deaths_per_epoch": 2,
                    **(pruning or {}),
                }
            ),
            training=TrainingConfig(**{"epochs": 4, "learning_rate": 0.01, "threads": 1, **(training or {})}),
            **{"out": str(tmp_path / "run"), **fields},
        )

    return make
