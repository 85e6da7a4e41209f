"""A run that takes a second: few digits, a narrow network, two timesteps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpap.data import DataConfig
from dpap.experiment.config import ExperimentConfig, TrainingConfig
from dpap.experiment.train import train
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


@pytest.fixture(scope="session")
def ann_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a rectifier network on normalised digits; nothing may be written into its folder."""
    return _finished(tmp_path_factory.mktemp("ann"), {"normalise": True}, {"neuron": "relu"})


@pytest.fixture(scope="session")
def snn_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a spiking network, of which timesteps died too."""
    return _finished(tmp_path_factory.mktemp("snn"), {}, {"neuron": "plif"}, timestep_target=0.2)


def _finished(folder: Path, data: dict[str, Any], network: dict[str, Any], **pruning: Any) -> Path:
    config = ExperimentConfig(
        data=DataConfig(batch_size=32, train_limit=192, test_limit=60, test_batch_size=25, **data),
        network=NetworkConfig("6C3-BN-AvgPool2-20FC-10FC", timesteps=3, **network),
        pruning=PruningConfig(target=0.6, start_epoch=0, end_epoch=1, observe_every=1, **pruning),
        training=TrainingConfig(epochs=2, learning_rate=0.01, threads=1),
        out=str(folder / "run"),
    )
    train(config)
    return config.folder
