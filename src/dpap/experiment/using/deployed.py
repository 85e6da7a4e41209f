"""A run's compact network where it is used: from its configuration and its model file, on data of anyone's choice."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import nn

from dpap.data import DataBundle, DataConfig, load_data
from dpap.data.kind import SampleKind, kind_of
from dpap.data.registry import DATASETS
from dpap.data.split import TensorSplit
from dpap.data.transform import ImageConverter
from dpap.experiment.config import ExperimentConfig, load_run_config, refuse_imports
from dpap.experiment.errors import UserError, blame
from dpap.experiment.learner import apply_memory_format
from dpap.experiment.machine import choose_device
from dpap.experiment.run_folder import RunFolder
from dpap.experiment.using.kept import kept_network

SHARED = ("root", "cache", "workers", "test_batch_size", "timesteps", "frames", "normalise")
"""Fields of a run's data that hold for other data too: where it lies, and what a network takes. How the run's own was
cut does not.
"""
ELSEWHERE = ("root", "cache", "workers", "test_batch_size", "batch_size", "augment", "randaugment", "erase")
"""Fields of data that leave the test samples what they are."""


@dataclass(frozen=True)
class Deployed:
    """A run's network.

    Attributes:
        folder: of the run.
        config: of the run, with the data that is asked for now.
        kind: the samples that the network takes.
        model: the compact network, in evaluation mode.
        device: where it is.
    """

    folder: RunFolder
    config: ExperimentConfig
    kind: SampleKind
    model: nn.Module
    device: torch.device


def read_config(
    folder: RunFolder, changes: Mapping[str, Any], *, allow_imports: bool
) -> tuple[ExperimentConfig, ExperimentConfig]:
    """A run's configuration, and the same with other data.

    Args:
        folder: of the run.
        changes: fields of its data.
        allow_imports: import the data set of its own that the result may name.

    Raises:
        UserError: as `load_run_config`, and where the changes do not fit.
    """
    stored = load_run_config(folder.config, allow_imports=True)  # nothing is imported by reading it
    before, name = stored.data, changes.get("name", stored.data.name)
    with blame("the data"):
        if name == before.name:
            data = replace(before, **changes)
        else:
            kept = {field: getattr(before, field) for field in SHARED}
            if ":" in name:
                kept["normalise"] = False  # its own code does that
            data = replace(DataConfig(), **{**kept, **changes})
    config = replace(stored, data=data)
    if not allow_imports:
        refuse_imports(config, f"configuration {folder.config}")
    return stored, config


def same_test_samples(stored: DataConfig, now: DataConfig) -> bool:
    """Whether a configuration has the test samples of another one."""
    return all(
        getattr(stored, each.name) == getattr(now, each.name)
        for each in fields(DataConfig)
        if each.name not in ELSEWHERE
    )


def read_data(stored: DataConfig, now: DataConfig) -> tuple[DataBundle, list[str]]:
    """Data for a run's network, and notes on what differs from the run's own.

    Another data set is normalised by the numbers of the run's: these belong to the network.

    Raises:
        UserError: where it is not found, or its samples are of another kind.
    """
    kind, notes = kind_of(stored), []
    with blame("the data"):
        data = load_data(now)
        if kind is not None and (note := kind.check(data)) is not None:
            notes.append(note)
    source, test = DATASETS.get(stored.name), data.test
    if (
        now.name != stored.name
        and source is not None
        and isinstance(test, TensorSplit)
        and isinstance(test.convert, ImageConverter)
        and test.convert.statistics is not None
    ):
        convert = replace(test.convert, statistics=source.statistics)
        data = replace(data, test=replace(test, convert=convert))
        notes.append(f"normalised by mean and deviation of {stored.name}, as the network was trained")
    return data, notes


def deploy(
    folder: RunFolder, config: ExperimentConfig, kind: SampleKind, device: str | None = None
) -> Deployed:
    """Build a run's network and give it the weights and the structure of its model file.

    Args:
        folder: of the run.
        config: of the run.
        kind: the samples that it takes.
        device: where it runs; None is where it was trained, or what there is.

    Raises:
        UserError: where the file is damaged or of another network, or there is no such device.
    """
    own = "cpu" if config.training.device == "cpu" else "auto"
    place = choose_device(own) if device is None else choose_device(device, "--device")
    model = kept_network(folder, config, kind, place)
    apply_memory_format(model, config.training)
    shape = (1, *kind.input_shape) if kind.timesteps is None else (kind.timesteps, 1, *kind.input_shape)
    try:
        with torch.no_grad():
            returned = model(torch.zeros(shape, device=place))
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the network: {folder.model} does not run on samples of {kind.name}: {error}"
        ) from error
    if returned.shape != (1, kind.classes):
        raise UserError(
            f"the network: {folder.model} returns {list(returned.shape)} for a sample, expected [1, {kind.classes}]"
        )
    return Deployed(folder, config, kind, model, place)
