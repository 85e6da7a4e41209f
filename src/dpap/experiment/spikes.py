"""The spikes of one test sample, as a run keeps them for its report: of few neurons of each layer."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dpap.data import DataBundle
from dpap.experiment.sealed import Record
from dpap.metrics.layers import evaluating
from dpap.spiking import SpikingNeuron
from dpap.surgery.timesteps import BUFFER

LAYERS, NEURONS, TIMESTEPS = 24, 32, 128
"""Largest numbers of layers, of neurons of each, and of timesteps that are kept."""
QUIET, SPIKE, SILENCED = "0", "1", "-"
"""A neuron at a timestep, as a character."""


def spikes_record(model: nn.Module, data: DataBundle, device: torch.device) -> Record | None:
    """Spikes of the first test sample in every layer of spiking neurons; None of a network without.

    One neuron of a unit is kept: of a channel the neuron of its map that fires most, the first of several. Of many
    units they are spread evenly. Each is text of one character a timestep: a spike, none, or a silenced timestep.
    """
    neurons = {name: module for name, module in model.named_modules() if isinstance(module, SpikingNeuron)}
    if not neurons:
        return None
    x, label = next(iter(data.test.batches(1)))
    fired: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, args: Any, spikes: Tensor) -> None:
        fired[name] = spikes[:, 0].flatten(2) if spikes.ndim > 3 else spikes[:, 0].unsqueeze(-1)

    handles = [module.register_forward_hook(partial(keep, name)) for name, module in neurons.items()]
    try:
        with evaluating(model):
            model(x.to(device))
    finally:
        for handle in handles:
            handle.remove()
    layers = [_layer(name, spikes.cpu(), neurons[name]) for name, spikes in fired.items()]
    return {
        "label": int(label[0]),
        "timesteps": len(next(iter(fired.values()))) if fired else 0,
        "total_layers": len(layers),
        "layers": layers[:LAYERS],
    }


def _layer(name: str, spikes: Tensor, neuron: nn.Module) -> Record:
    """A layer, of its spikes [time, unit, place]."""
    steps, units, places = spikes.shape
    alive = neuron._buffers.get(BUFFER)
    awake = torch.ones(steps, units, dtype=torch.bool) if alive is None else alive.cpu()
    shown = [round(i * (units - 1) / max(min(units, NEURONS) - 1, 1)) for i in range(min(units, NEURONS))]
    rows = []
    for unit in shown:
        own = spikes[:TIMESTEPS, unit]
        train = own[:, int(own.sum(0).argmax())] if places else own.new_zeros(len(own))
        states = zip(train.tolist(), awake[:TIMESTEPS, unit].tolist(), strict=True)
        text = "".join(SILENCED if not alive else SPIKE if spike else QUIET for spike, alive in states)
        rows.append({"unit": unit, "spikes": text})
    return {
        "name": name,
        "units": units,
        "neurons": units * places,
        "spikes": int((spikes != 0).sum()),
        "silenced": 1.0 - float(awake.double().mean()) if awake.numel() else 0.0,
        "rows": rows,
    }
