"""How many numbers a network holds, and how many of its weights are not zero."""

from dataclasses import dataclass

from torch import nn

from dpap.anatomy.layers import weight_of
from dpap.metrics.layers import weight_layers


@dataclass(frozen=True)
class LayerWeights:
    """Weights of one layer, biases not counted; it has `units` outputs and `features` inputs."""

    name: str
    units: int
    features: int
    weights: int
    nonzero: int


@dataclass(frozen=True)
class Weights:
    """Weights of the convolutions and fully connected layers of a network, biases not counted."""

    layers: tuple[LayerWeights, ...]

    @property
    def total(self) -> int:
        """Weights of all layers."""
        return sum(layer.weights for layer in self.layers)

    @property
    def nonzero(self) -> int:
        """Weights of all layers that are not zero."""
        return sum(layer.nonzero for layer in self.layers)

    @property
    def sparsity(self) -> float:
        """Pruning rate: share of the weights that are zero."""
        return 1 - self.nonzero / self.total if self.total else 0.0


def parameters(model: nn.Module) -> int:
    """Elements of all parameters, shared ones once.

    Example:
        >>> from torch import nn
        >>> from dpap.metrics import parameters
        >>> parameters(nn.Linear(8, 32))
        288
    """
    return sum(parameter.numel() for parameter in model.parameters())


def weights(model: nn.Module) -> Weights:
    """Weights of every convolution and fully connected layer.

    Example:
        >>> from torch import nn
        >>> from dpap.metrics import weights
        >>> layer = nn.Linear(8, 32)
        >>> _ = nn.init.zeros_(layer.weight[:16])
        >>> counted = weights(layer)
        >>> counted.total, counted.nonzero, counted.sparsity
        (256, 128, 0.5)
    """
    layers = []
    for name, layer in weight_layers(model).items():
        weight = weight_of(layer)
        layers.append(
            LayerWeights(
                name=name,
                units=layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels,
                features=layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels,
                weights=weight.numel(),
                nonzero=int(weight.count_nonzero()),
            )
        )
    return Weights(tuple(layers))
