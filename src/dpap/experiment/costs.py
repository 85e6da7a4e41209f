"""What a network costs, as the summary of a run holds it."""

import statistics
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from torch import nn

from dpap.data import DataBundle
from dpap.experiment.formatting import PICO
from dpap.experiment.learner import example_of
from dpap.metrics import (
    energy,
    inference_picojoules,
    latencies,
    macs,
    parameters,
    synaptic_operations,
    weights,
)
from dpap.metrics.energy import PICOJOULES_AC, PICOJOULES_MAC

SAMPLES = 256
"""Of the test split, on which operations are counted. The energy of single samples varies by 10% (digits), 21%
(CIFAR-10) and 27% (MNIST) of the mean (n = 192 each, seed 0), so the mean of these is within 2%, one standard error.
"""
BATCH = 32  # samples at a time


def costs(model: nn.Module, data: DataBundle, device: torch.device, spiking: bool) -> dict[str, Any]:
    """Size and work of one network; operations and energy are per sample, all timesteps together.

    `weights` are those that are not zero, those of each layer the stored ones. `macs` are those of the stored network,
    zeros counted; `synaptic_operations` are the products of which neither input nor weight is zero, on the first
    `SAMPLES` of the test split. `picojoules` is their energy: `accumulates` additions where spikes or counts of spikes
    arrive, `multiplies` multiplications with addition elsewhere. `energy` is in joules, by (14), as if nothing were
    sparse.
    """
    one = example_of(data, device, samples=1)
    batches = islice(data.test.batches(BATCH), -(-SAMPLES // BATCH))
    counted = synaptic_operations(model, (x.to(device) for x, _ in batches), 1 if data.events else 0)
    sizes = weights(model)
    multiplies = macs(model, one)
    return {
        "parameters": parameters(model),
        "weights": sizes.nonzero,
        "macs": multiplies,
        "synaptic_operations": counted.total,
        "accumulates": counted.accumulates,
        "multiplies": counted.multiplies,
        "picojoules": inference_picojoules(counted),
        # MACs hold all timesteps already, and a constant input's first layer only once
        "energy": energy(float(multiplies), 1, PICOJOULES_AC if spiking else PICOJOULES_MAC) * PICO,
        "layers": [
            {"name": each.name, "units": each.units, "features": each.features, "weights": each.weights}
            for each in sizes.layers
        ],
    }


def latency_records(
    models: Sequence[nn.Module], data: DataBundle, device: torch.device
) -> list[dict[str, float]]:
    """Latency of a batch of one of each network, measured in turn: median and quartiles, in seconds."""
    measured = latencies(models, example_of(data, device, samples=1))
    return [
        dict(
            zip(
                ("latency_low", "latency_seconds", "latency_high"),
                statistics.quantiles(seconds, method="inclusive"),
                strict=True,
            )
        )
        for seconds in measured
    ]
