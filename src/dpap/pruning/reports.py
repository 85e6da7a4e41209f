"""What the pruner reports after each step."""

from collections.abc import Mapping
from dataclasses import dataclass

from dpap.anatomy import Wiring
from dpap.surgery import CompactReport, Masks


@dataclass(frozen=True)
class LayerReport:
    """One weight layer after a step.

    Attributes:
        name: of the layer.
        kind: "conv", "fc" or "recurrent".
        units: units of the dense network.
        alive: units alive.
        died: units that died in this step.
        weights: weights of the dense network.
        weights_alive: weights of alive synapses between alive units.
        timesteps_alive: share of the alive neurons' timesteps that is alive; 1.0 where timesteps do not die.

    Example:
        >>> import torch, dpap
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
        >>> config = dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=1, synapses=False)
        >>> pruner = dpap.Pruner(model, torch.rand(4, 8), config=config)
        >>> model(torch.rand(64, 8)).square().sum().backward()  # training, of which gradients are observed
        >>> report = pruner.step()
        >>> layer = report.layers[0]
        >>> f"{layer.name}: {layer.alive} of {layer.units} units, {layer.weights_alive} of {layer.weights} weights"
        '0: 16 of 32 units, 128 of 256 weights'
    """

    name: str
    kind: str
    units: int
    alive: int
    died: int
    weights: int
    weights_alive: int
    timesteps_alive: float


@dataclass(frozen=True)
class PruneReport:
    """The network after a step.

    Attributes:
        epoch: epochs trained before this step: an index from 0, as in `for epoch in range(epochs)`. What is printed
            counts epochs from 1, as pages, tables and files do.
        epsilon: decay value that was used, by kind ("conv", "neuron", "synapse", "timestep"); empty where nothing
            could die in this step.
        sparsity: share of the prunable weights that is dead.
        timestep_sparsity: share of the alive neurons' timesteps that is dead.
        target_of: what a target is a share of, as `PruningConfig` has it.
        achieved: share of it that is pruned.
        target: share of it that was due, or None without a target.
        layers: each weight layer.
        compacted: what was removed physically in this step, or None.
        left_out: observed batches of which something was left out, for it was infinite or NaN.

    Example:
        >>> import torch, dpap
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
        >>> config = dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=1, synapses=False)
        >>> pruner = dpap.Pruner(model, torch.rand(4, 8), config=config)
        >>> model(torch.rand(64, 8)).square().sum().backward()  # training, of which gradients are observed
        >>> report = pruner.step()
        >>> report.sparsity, report.layers[0].alive
        (0.5, 16)
        >>> print(report)
        epoch 1: 50.0% of the weights dead (due: 50.0%); units alive: 0 16/32, 2 2/2
    """

    epoch: int
    epsilon: dict[str, float]
    sparsity: float
    timestep_sparsity: float
    target_of: str
    achieved: float
    target: float | None
    layers: tuple[LayerReport, ...]
    compacted: CompactReport | None
    left_out: int = 0

    def __str__(self) -> str:
        layers = ", ".join(f"{layer.name} {layer.alive}/{layer.units}" for layer in self.layers)
        due = "" if self.target is None else f" (due: {self.target:.1%})"
        times = f", {self.timestep_sparsity:.1%} of the neuron-timesteps" if self.timestep_sparsity else ""
        dead = f"{self.sparsity:.1%} of the weights dead"
        if self.target_of == "weights":
            dead += due
        else:
            dead = f"{self.achieved:.1%} of the {self.target_of.replace('_', ' ')} pruned{due}, {dead}"
        text = f"epoch {self.epoch + 1}: {dead}{times}; units alive: {layers}"
        text += f"; {self.left_out} batches with infinite or NaN values left out" if self.left_out else ""
        return text if self.compacted is None else f"{text}; {self.compacted}"


def layer_reports(
    wiring: Wiring,
    masks: Masks,
    initial_units: Mapping[str, int],
    initial_weights: Mapping[str, int],
    alive_before: Mapping[str, int],
) -> tuple[LayerReport, ...]:
    """Every weight layer of which any weight can die.

    Args:
        wiring: of the network.
        masks: what is alive.
        initial_units, initial_weights: of the dense network, by layer.
        alive_before: units that were alive before the step.
    """
    reports = []
    for name, weights_alive in masks.alive_weights(wiring).items():
        layer = wiring.layers[name]
        units, times = masks.units.get(name), masks.timesteps.get(name)
        alive = layer.units if units is None else int(units.sum())
        known = times is not None and units is not None and bool(units.any())
        reports.append(LayerReport(
            name=name,
            kind=layer.kind.name,
            units=initial_units[name],
            alive=alive,
            died=alive_before.get(name, alive) - alive,
            weights=initial_weights[name],
            weights_alive=weights_alive,
            timesteps_alive=float(times[:, units].float().mean()) if known else 1.0,  # type: ignore[index]
        ))  # fmt: skip
    return tuple(reports)
