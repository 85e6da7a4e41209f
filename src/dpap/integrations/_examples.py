"""Example inputs out of what frameworks load: batches with labels beside the inputs."""

import inspect
import random
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpap.anatomy.pytrees import Inputs

SAMPLES = 8
"""So many samples make an example."""
LABELS = ("labels", "label", "label_ids")
"""Names of a batch's parts that a network is not run on, though it may take them, to compute its loss."""


def first_samples(loader: Any) -> Any:
    """A batch of a loader's first samples, leaving the order of its next epoch and every random state alone.

    Raises:
        ValueError: where the samples have no order, as in a stream.
    """
    data = getattr(loader, "dataset", None)
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        raise ValueError(
            "example_inputs cannot be taken from data that is a stream, whose first samples would be lost: give "
            "example_inputs, what the network's forward takes, to the callback"
        )
    with _random_states_kept():
        return loader.collate_fn([data[index] for index in range(min(SAMPLES, len(data)))])


def inputs_of(batch: Any, network: nn.Module, labels: Collection[str] = LABELS) -> Inputs:
    """What a network's forward takes of a batch: the first part of a sequence, of a mapping what it has names for.

    Raises:
        TypeError: where it takes nothing of it.
    """
    if isinstance(batch, list | tuple) and batch:
        batch = batch[0]
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    if isinstance(batch, Tensor):
        return (batch.to(device),)
    if isinstance(batch, Mapping):
        taken = inspect.signature(network.forward).parameters
        anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
        found = {
            name: value.to(device) if isinstance(value, Tensor) else value
            for name, value in batch.items()
            if name not in labels and (anything or name in taken)
        }
        if found:
            return found
    raise TypeError(
        f"expected batches that begin with the network's inputs, a tensor or a mapping by the names of its forward's "
        f"arguments; got {type(batch).__name__}: give example_inputs, what the network's forward takes, to the callback"
    )


@contextmanager
def _random_states_kept() -> Iterator[None]:
    python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(of_numpy)  # noqa: NPY002
