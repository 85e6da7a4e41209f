"""The network that a finished run kept, from its configuration and its model file alone, or with its data."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dpap.data import DataBundle, load_data
from dpap.experiment.config import ExperimentConfig, load_run_config
from dpap.experiment.errors import UserError, blame
from dpap.experiment.learner import SampleSizes, build_model
from dpap.experiment.run_folder import RunFolder
from dpap.surgery import load


@dataclass(frozen=True)
class Kept:
    """A finished run.

    Attributes:
        config: of the run.
        model: the kept network, in evaluation mode on the CPU.
        data: its data.
    """

    config: ExperimentConfig
    model: nn.Module
    data: DataBundle

    def test_samples(self, count: int) -> Tensor:
        """The first of the test split: [B, C, H, W], of events [T, B, C, H, W]."""
        x, _ = next(iter(self.data.test.batches(count)))
        return x


def read_kept(path: Path, *, root: str | None = None, allow_imports: bool = False) -> Kept:
    """Build a run's network and read its data.

    Args:
        path: the run folder.
        root: where the data lies now; None where it lies as the run found it.
        allow_imports: import the data set of its own that the run may name.

    Raises:
        UserError: where there is no finished run, its data is not found, or its files do not fit.
    """
    folder = finished(path)
    config = load_run_config(folder.config, allow_imports=allow_imports)
    if root is not None:
        config = replace(config, data=replace(config.data, root=root))
    with blame("the data"):
        data = load_data(config.data)
    return Kept(config, kept_network(folder, config, data, torch.device("cpu")), data)


def finished(path: Path) -> RunFolder:
    """The folder of a run that has a model file.

    Raises:
        UserError: where there is none.
    """
    folder = RunFolder(path)
    if not folder.holds_a_run():
        raise UserError(f"{path} holds no run, for it has no {folder.config.name}")
    if not folder.model.is_file():
        raise UserError(f"the run in {path} is not finished: go on with it, {folder.resume_command}")
    return folder


def kept_network(
    folder: RunFolder, config: ExperimentConfig, samples: SampleSizes, device: torch.device
) -> nn.Module:
    """The network in a run's model file, in evaluation mode.

    Raises:
        UserError: where the file is damaged or of another network.
    """
    model = build_model(config, samples, device)
    with blame("the network"):
        load(folder.model, model)
    return model.eval()
