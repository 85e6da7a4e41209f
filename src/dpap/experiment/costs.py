"""What a network costs, as the summary of a run holds it."""

from typing import Any

import torch
from torch import nn

from dpap.data import DataBundle
from dpap.experiment.learner import example_of
from dpap.metrics import energy, latency, macs, parameters, synaptic_operations, weights
from dpap.metrics.energy import PICOJOULES_AC, PICOJOULES_MAC

SAMPLES = 32  # of the test split, on which synaptic operations are counted
PICO = 1e-12


def costs(model: nn.Module, data: DataBundle, device: torch.device, spiking: bool) -> dict[str, Any]:
    """Size and work of one network; operations, energy and latency are per sample, all timesteps together.

    `weights` are those that are not zero, those of each layer the stored ones; `energy` is in joules, by (14), as if
    nothing were sparse; `latency_seconds` is that of a batch of one.
    """
    one = example_of(data, device, samples=1)
    x, _ = next(iter(data.test.batches(SAMPLES)))
    sizes = weights(model)
    multiplies = macs(model, one)
    return {
        "parameters": parameters(model),
        "weights": sizes.nonzero,
        "macs": multiplies,
        "synaptic_operations": synaptic_operations(model, [x.to(device)], 1 if data.events else 0).total,
        # MACs hold all timesteps already, and a constant input's first layer only once
        "energy": energy(float(multiplies), 1, PICOJOULES_AC if spiking else PICOJOULES_MAC) * PICO,
        "latency_seconds": latency(model, one),
        "layers": [
            {"name": each.name, "units": each.units, "features": each.features, "weights": each.weights}
            for each in sizes.layers
        ],
    }
