"""Synaptic operations: the products of a nonzero input and a nonzero weight that a forward computes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrize import is_parametrized

from dpap.anatomy.observing.levels import common_step, joint_step
from dpap.metrics.layers import WeightModule, evaluating, weight_layers
from dpap.pruning.costs import adding_is_cheaper


@dataclass(frozen=True)
class LayerOperations:
    """Operations of one layer.

    Attributes:
        name: of the layer.
        per_sample: operations that one sample takes on average, all its timesteps together.
        spiking: whether every input was 0 or 1, so that an operation is an addition (accumulate) and needs no
            multiplication.
        activity: share of the input values that were not zero.
        additions: additions per sample that do the same without multiplying: one for each spike and weight, where
            a value that counts spikes (pooled, or of several layers) stands for that many, with the pool's factor
            folded into the weights; None where the input is analogue.
    """

    name: str
    per_sample: float
    spiking: bool
    activity: float
    additions: float | None

    @property
    def adds(self) -> bool:
        """Whether it is counted as additions: where they take less energy than multiplying."""
        return adding_is_cheaper(self.per_sample, self.additions)


@dataclass(frozen=True)
class SynapticOperations:
    """Operations of a network over some samples; padding, biases and normalisation are not counted."""

    layers: tuple[LayerOperations, ...]
    samples: int

    @property
    def total(self) -> float:
        """Operations per sample."""
        return math.fsum(layer.per_sample for layer in self.layers)

    @property
    def accumulates(self) -> float:
        """Additions per sample of the layers that are counted as additions."""
        return math.fsum(layer.additions for layer in self.layers if layer.adds and layer.additions)

    @property
    def multiplies(self) -> float:
        """Operations (multiply-accumulates) per sample of the others."""
        return math.fsum(layer.per_sample for layer in self.layers if not layer.adds)


class _Tally:
    """Pre-hook that adds up the operations of one layer over its calls."""

    def __init__(self, layer: WeightModule) -> None:
        mask = (layer.weight != 0).double()
        # Which unit a product goes to does not matter to the sum: one merged unit per group counts for all.
        if isinstance(layer, nn.Linear):
            merged, outputs = mask.sum(0, keepdim=True), 1
        elif layer.transposed:
            merged, outputs = mask.sum(1, keepdim=True), layer.groups
        else:
            merged = mask.unflatten(0, (layer.groups, -1)).sum(1)
            outputs = layer.groups
        self.weights = {"layer.weight": merged}
        if layer.bias is not None:
            self.weights["layer.bias"] = merged.new_zeros(outputs)
        self.operations = 0.0
        self.magnitude = 0.0
        self.step = 0.0
        self.spiking = True
        self.nonzero = 0
        self.values = 0

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x: Tensor = args[0] if args else kwargs["input"]
        present = x != 0
        self.operations += self._products(layer, present, *args[1:])
        self.step = joint_step(self.step, common_step(x))
        if not math.isnan(self.step):
            self.magnitude += self._products(layer, x.abs(), *args[1:])
        self.spiking = self.spiking and bool((~present | (x == 1)).all())
        self.nonzero += int(present.sum())
        self.values += present.numel()

    @property
    def additions(self) -> float | None:
        """Steps of all inputs, times the weights that each is multiplied with."""
        if math.isnan(self.step):
            return None
        return self.magnitude / self.step if self.step else 0.0

    def _products(self, layer: nn.Module, x: Tensor, *others: Any) -> float:
        """Sum over the inputs of their value times the number of weights that each is multiplied with."""
        with torch.autocast(x.device.type, enabled=False):
            products: Tensor = functional_call(_Bare(layer), self.weights, (x.double(), *others))
        return products.sum().item()


class _Bare(nn.Module):
    """A layer without its hooks, so that counting does not count itself."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *args: Any) -> Tensor:
        return self.layer.forward(*args)


def synaptic_operations(
    model: nn.Module, batches: Iterable[Tensor | tuple[Any, ...]], batch_dim: int = 0
) -> SynapticOperations:
    """Run the network on batches of input and count, layer by layer, from the actual inputs.

    Args:
        model: any network; its convolutions and fully connected layers are counted.
        batches: inputs of the network, each a tensor or the tuple of its arguments.
        batch_dim: dimension of the (first) input that counts samples: 1 for [time, batch, ...].

    Raises:
        ValueError: there is no batch, or a layer's weight is parametrised, so that it cannot be replaced.

    Example:
        >>> import torch
        >>> from dpap.metrics import synaptic_operations
        >>> spikes = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
        >>> operations = synaptic_operations(torch.nn.Linear(4, 10), [spikes])
        >>> operations.total, operations.layers[0].spiking  # per sample
        (15.0, True)
    """
    layers = weight_layers(model)
    for name, layer in layers.items():
        if is_parametrized(layer):
            raise ValueError(
                f"layer '{name}' must hold its weight as a plain parameter; got a parametrisation: remove it "
                "with torch.nn.utils.parametrize.remove_parametrizations first"
            )
    samples = 0
    with evaluating(model):
        tallies = {name: _Tally(layer) for name, layer in layers.items()}
        handles = [
            layer.register_forward_pre_hook(tallies[name], with_kwargs=True) for name, layer in layers.items()
        ]
        try:
            for batch in batches:
                arguments = batch if isinstance(batch, tuple) else (batch,)
                samples += arguments[0].shape[batch_dim]
                model(*arguments)
        finally:
            for handle in handles:
                handle.remove()
    if samples == 0:
        raise ValueError("synaptic operations are counted from activity: give at least one sample; got none")
    return SynapticOperations(
        layers=tuple(
            LayerOperations(
                name=name,
                per_sample=tally.operations / samples,
                spiking=tally.spiking and tally.values > 0,
                activity=tally.nonzero / tally.values if tally.values else 0.0,
                additions=None if tally.additions is None else tally.additions / samples,
            )
            for name, tally in tallies.items()
        ),
        samples=samples,
    )
