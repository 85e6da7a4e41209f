"""Which modules are projections: layers whose weight connects every unit to every feature it reads."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


@dataclass(frozen=True)
class LayerKind:
    """Where a weight layer keeps its units and features.

    Attributes:
        name: "conv" (a unit is a channel and dies whole) or "fc" (units and single synapses die).
        unit_axis: axis of the weight that counts units.
        feature_axis: axis of the weight that counts input features.
        activity_axis: axis of the layer's input and output that counts features and units, from the end.
    """

    name: Literal["conv", "fc"]
    unit_axis: int
    feature_axis: int
    activity_axis: int


_KINDS: tuple[tuple[type[nn.Module], LayerKind], ...] = (
    (nn.Linear, LayerKind("fc", 0, 1, -1)),
    (nn.Conv1d, LayerKind("conv", 0, 1, -2)),
    (nn.Conv2d, LayerKind("conv", 0, 1, -3)),
    (nn.Conv3d, LayerKind("conv", 0, 1, -4)),
    (nn.ConvTranspose1d, LayerKind("conv", 1, 0, -2)),
    (nn.ConvTranspose2d, LayerKind("conv", 1, 0, -3)),
    (nn.ConvTranspose3d, LayerKind("conv", 1, 0, -4)),
)


def layer_kind(module: nn.Module) -> LayerKind | None:
    """The kind of projection that a module is, or None."""
    for layer, kind in _KINDS:
        if isinstance(module, layer):
            return kind
    return None


def is_depthwise(module: nn.Module) -> bool:
    """Whether a module is a convolution of each channel with kernels of its own: no connection between channels."""
    groups = groups_of(module)
    return layer_kind(module) is not None and groups > 1 and size_of(module)[1] == groups


def groups_of(module: nn.Module) -> int:
    """In how many groups a projection connects units and features; each unit reads those of its own group."""
    groups: int = getattr(module, "groups", 1)
    return groups


def weight_of(module: nn.Module) -> Tensor:
    """The weight of a projection."""
    weight = module.weight
    if not isinstance(weight, Tensor):
        raise TypeError(
            f"a projection has a weight tensor; {type(module).__name__} has {type(weight).__name__}"
        )
    return weight


def incoming(module: nn.Module) -> Float[Tensor, "unit incoming"]:
    """The weight of a projection with one row for each unit: its weights from every feature that it reads."""
    kind = layer_kind(module)
    if kind is None:
        raise TypeError(f"expected a Linear or convolution layer; got {type(module).__name__}")
    weight = weight_of(module).detach()
    if kind.unit_axis == 1:
        weight = weight.unflatten(0, (groups_of(module), -1)).transpose(1, 2).flatten(0, 1)
    return weight.flatten(1)


def size_of(module: nn.Module) -> tuple[int, int]:
    """How many units and features a projection has, groups counted in."""
    kind = layer_kind(module)
    if kind is None:
        raise TypeError(f"expected a Linear or convolution layer; got {type(module).__name__}")
    shape, groups = weight_of(module).shape, groups_of(module)
    units, features = shape[kind.unit_axis], shape[kind.feature_axis]
    return (units * groups, features) if kind.unit_axis == 1 else (units, features * groups)


def select(
    tensor: Tensor, module: nn.Module, shape: torch.Size, units: Tensor | None, features: Tensor | None
) -> Tensor:
    """What remains of a tensor laid out like a projection's weight; None keeps all.

    Args:
        tensor: the weight, its gradient, or state of an optimizer; axes of another size than the weight's, such
            as the ones of a factored moment, stay as they are.
        module: the projection.
        shape: of the weight.
        units: indices of the units that remain, ascending, in equal numbers in every group.
        features: indices of the features that remain, likewise.
    """
    kind = layer_kind(module)
    if kind is None:
        raise TypeError(f"expected a Linear or convolution layer; got {type(module).__name__}")
    # the first axis counts through all groups, the second within one
    through, within = (units, features) if kind.unit_axis == 0 else (features, units)
    if through is not None and tensor.shape[0] == shape[0]:
        tensor = tensor.index_select(0, through.to(tensor.device))
    if within is not None and tensor.shape[1] == shape[1]:
        groups = groups_of(module)
        first = shape[1] * torch.arange(groups)[:, None]
        places = (within.cpu().view(groups, -1) - first).to(tensor.device)
        blocks = [
            block.index_select(1, place) for block, place in zip(tensor.chunk(groups), places, strict=True)
        ]
        tensor = torch.cat(blocks) if groups > 1 else blocks[0]
    return tensor


def between(module: nn.Module, units: Bool[Tensor, "_"], features: Bool[Tensor, "_"]) -> Bool[Tensor, "..."]:
    """Which weights lie between the given features and units, in the weight's shape."""
    kind = layer_kind(module)
    if kind is None:
        raise TypeError(f"expected a Linear or convolution layer; got {type(module).__name__}")
    shape, groups = weight_of(module).shape, groups_of(module)
    through, within = (units, features) if kind.unit_axis == 0 else (features, units)
    blocks = through.view(groups, -1, 1) & within.view(groups, 1, -1)
    return blocks.flatten(0, 1).view(*shape[:2], *[1] * (len(shape) - 2)).expand(shape)
