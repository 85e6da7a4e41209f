"""Weight layers: modules whose weight connects every unit to every feature that it reads, and how to add others."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from dpap.anatomy.frameworks import LAYERS, qualified_name
from dpap.anatomy.parametrized import read
from dpap.anatomy.views import FusedView, JointView, MatrixView

Registrable = Literal["conv", "fc"]
KindName = Literal["conv", "fc", "recurrent"]


@dataclass(frozen=True)
class LayerKind:
    """Where a class of weight layers keeps its units and features.

    Attributes:
        name: "conv" (a unit is a channel and dies whole), "fc" (units and single synapses die), or "recurrent" (a
            unit dies with all its gates).
        unit_axis: axis of the weight that counts units.
        feature_axis: axis of the weight that counts input features.
        activity_axis: axis of the layer's input and output that counts features and units, from the end.
        weight: name of the parameter that is the weight.
        bias: name of the parameter with one value per unit that is added to the output; a layer may lack it.
        unit_counts, feature_counts: names of attributes that count units and features; a layer may lack them.
    """

    name: KindName
    unit_axis: int
    feature_axis: int
    activity_axis: int
    weight: str = "weight"
    bias: str = "bias"
    unit_counts: tuple[str, ...] = ("out_features", "out_channels")
    feature_counts: tuple[str, ...] = ("in_features", "in_channels")


_REGISTRY: dict[type[nn.Module], LayerKind] = {
    nn.Linear: LayerKind("fc", 0, 1, -1),
    # cut along its units and its first input; what enters second is mixed for it
    nn.Bilinear: LayerKind("fc", 0, 1, -1, feature_counts=("in1_features",)),
    nn.Conv1d: LayerKind("conv", 0, 1, -2),
    nn.Conv2d: LayerKind("conv", 0, 1, -3),
    nn.Conv3d: LayerKind("conv", 0, 1, -4),
    nn.ConvTranspose1d: LayerKind("conv", 1, 0, -2),
    nn.ConvTranspose2d: LayerKind("conv", 1, 0, -3),
    nn.ConvTranspose3d: LayerKind("conv", 1, 0, -4),
}


def register_layer(
    layer: type[nn.Module],
    *,
    unit_axis: int,
    feature_axis: int,
    activity_axis: int,
    weight: str = "weight",
    bias: str = "bias",
    kind: Registrable = "fc",
    unit_count: str | None = None,
    feature_count: str | None = None,
) -> None:
    """Make a class of modules, and its subclasses, known as weight layers, whose units can die and be removed.

    Its output must be linear in its weight, each unit a weighted sum of the features and its bias; what else it
    computes from other parameters is not cut along.

    Args:
        layer: the class; its forward takes the features as its first argument.
        unit_axis: axis of the weight that counts units, 0 or 1.
        feature_axis: axis of the weight that counts input features, the other one.
        activity_axis: axis of input and output that counts features and units, from the end (-1: the last).
        weight: name of the parameter that is the weight.
        bias: name of the parameter with one value per unit; a module may lack it or have None.
        kind: "fc": units and single synapses die, by the constants of fully connected layers; "conv": units die whole,
            by those of channels.
        unit_count: name of the attribute that counts units, if there is one, so that it follows a removal.
        feature_count: likewise of features.

    Raises:
        TypeError: where it is no class of modules.
        ValueError: where an axis is not as described.

    Example:
        A layer that keeps its weight as [feature, unit], as GPT-2's does:

        >>> import torch, dpap
        >>> from torch import nn
        >>> class Transposed(nn.Module):
        ...     def __init__(self, features, units):
        ...         super().__init__()
        ...         self.kernel = nn.Parameter(torch.randn(features, units))
        ...     def forward(self, x):
        ...         return x @ self.kernel
        >>> dpap.register_layer(Transposed, weight="kernel", unit_axis=1, feature_axis=0, activity_axis=-1)
        >>> model = nn.Sequential(Transposed(4, 8), nn.ReLU(), Transposed(8, 2))
        >>> dpap.find_wiring(model, (torch.rand(3, 4),)).layers["0"].prunability
        'prunable'
    """
    if not (isinstance(layer, type) and issubclass(layer, nn.Module)):
        raise TypeError(f"register_layer expects a class of torch.nn.Module; got {layer!r}")
    if {unit_axis, feature_axis} != {0, 1}:
        raise ValueError(
            "unit_axis and feature_axis are the first two axes of the weight, 0 and 1 in some order; got "
            f"{unit_axis} and {feature_axis}"
        )
    if activity_axis >= 0:
        raise ValueError(f"activity_axis counts from the end, -1 is the last axis; got {activity_axis}")
    if kind not in get_args(Registrable):
        raise ValueError(f'kind must be "fc" or "conv"; got {kind!r}')
    _REGISTRY[layer] = LayerKind(
        kind,
        unit_axis,
        feature_axis,
        activity_axis,
        weight,
        bias,
        () if unit_count is None else (unit_count,),
        () if feature_count is None else (feature_count,),
    )


_REGISTRY[MatrixView] = _REGISTRY[JointView] = LayerKind(
    "recurrent", 0, 1, -1, unit_counts=(), feature_counts=()
)


def matrices_of(module: nn.Module) -> Iterator[tuple[nn.Module, slice]]:
    """Each matrix of a weight layer, most of which have one, as a weight layer, and which features it reads."""
    first = 0
    for matrix in module.matrices if isinstance(module, JointView) else (module,):
        features = size_of(matrix)[1]
        yield matrix, slice(first, first + features)
        first += features


def gates_of(module: nn.Module) -> int:
    """How many rows of the weight, and values of the bias, each unit has."""
    return module.gates if isinstance(module, MatrixView | FusedView) else 1


def by_row(values: Shaped[Tensor, "unit"], module: nn.Module) -> Shaped[Tensor, "row"]:
    """A value of each unit, for each of the rows that it has."""
    if isinstance(module, FusedView) and module.interleaved:
        return values.repeat_interleave(module.gates)
    return values.repeat(gates_of(module))


def by_unit(rows: Shaped[Tensor, "row *rest"], module: nn.Module) -> Shaped[Tensor, "unit gate *rest"]:
    """What lies along the first axis, for each unit and each of the rows that it has."""
    if isinstance(module, FusedView) and module.interleaved:
        return rows.unflatten(0, (-1, module.gates))
    return rows.unflatten(0, (gates_of(module), -1)).transpose(0, 1)


def layer_kind(module: nn.Module) -> LayerKind | None:
    """The kind of weight layer that a module is, or None; the nearest registered base class decides."""
    if isinstance(module, FusedView):
        return layer_kind(module.owner)
    kinds = (_REGISTRY.get(base) or _of_framework(base) for base in type(module).__mro__)
    return next((kind for kind in kinds if kind is not None), None)


@cache
def _of_framework(base: type) -> LayerKind | None:
    axes = LAYERS.get(qualified_name(base))
    if axes is None:
        return None
    return LayerKind("fc", axes.unit, axes.feature, -1, unit_counts=axes.units, feature_counts=axes.features)


def known_kind(module: nn.Module) -> LayerKind:
    """The kind of a weight layer.

    Raises:
        TypeError: where the module is none.
    """
    kind = layer_kind(module)
    if kind is None:
        raise TypeError(
            f"expected a Linear or convolution layer, or a registered one; got {type(module).__name__}"
        )
    return kind


def is_depthwise(module: nn.Module) -> bool:
    """Whether a module is a convolution of each channel with kernels of its own: no connection between channels."""
    groups = groups_of(module)
    return layer_kind(module) is not None and groups > 1 and size_of(module)[1] == groups


def groups_of(module: nn.Module) -> int:
    """In how many groups a layer connects units and features; each unit reads those of its own group."""
    groups: int = getattr(module, "groups", 1)
    return groups


def weight_of(module: nn.Module) -> Tensor:
    """The weight of a weight layer; a look at it leaves no trace, also where it is computed."""
    name = known_kind(module).weight
    weight = read(module.owner if isinstance(module, FusedView) else module, name)
    if not isinstance(weight, Tensor):
        raise TypeError(
            f"expected a tensor as {name} of {type(module).__name__}; got {type(weight).__name__}"
        )
    return weight


def owner_of(module: nn.Module) -> nn.Module:
    """The module that holds a weight layer's parameters: itself, or the one of which it is a part."""
    return module.owner if isinstance(module, MatrixView | JointView | FusedView) else module


def called_as(module: nn.Module) -> nn.Module | None:
    """The module that is called with a weight layer's features and returns its units; None of recurrent parts."""
    return None if isinstance(module, MatrixView | JointView) else owner_of(module)


def bias_of(module: nn.Module) -> nn.Parameter | None:
    """The bias of a weight layer, one value per unit, if it has one."""
    if isinstance(module, MatrixView):
        return module.bias
    return owner_of(module)._parameters.get(known_kind(module).bias)


def incoming(module: nn.Module) -> Float[Tensor, "unit incoming"]:
    """The weight of a layer with one row for each unit: its weights from every feature that it reads."""
    rows = [as_rows(weight_of(matrix).detach(), matrix) for matrix, _ in matrices_of(module)]
    return rows[0] if len(rows) == 1 else torch.cat(rows, 1)


def as_rows(tensor: Tensor, module: nn.Module) -> Float[Tensor, "unit incoming"]:
    """A tensor laid out like a layer's weight, with one row for each unit."""
    if known_kind(module).unit_axis == 1:
        tensor = tensor.unflatten(0, (groups_of(module), -1)).transpose(1, 2).flatten(0, 1)
    if gates_of(module) > 1:
        tensor = by_unit(tensor, module)
    return tensor.flatten(1)


def sum_over_features(tensor: Tensor, module: nn.Module) -> Float[Tensor, " unit"]:
    """Sum of a tensor laid out like a layer's weight, over all that each unit reads."""
    return _summed(tensor, module, units=True)


def sum_over_units(tensor: Tensor, module: nn.Module) -> Float[Tensor, " feature"]:
    """Sum of a tensor laid out like a layer's weight, over all that reads each feature."""
    return _summed(tensor, module, units=False)


def _summed(tensor: Tensor, module: nn.Module, units: bool) -> Float[Tensor, "_"]:
    if tensor.ndim > 2:
        tensor = tensor.sum(tuple(range(2, tensor.ndim)))
    if (known_kind(module).unit_axis == 0) == units:
        # the first axis counts through all groups
        sums = tensor.sum(1)
    else:
        sums = tensor.unflatten(0, (groups_of(module), -1)).sum(1).flatten()
    return by_unit(sums, module).sum(1) if units and gates_of(module) > 1 else sums


def as_weight(synapses: Bool[Tensor, "unit feature"], module: nn.Module) -> Bool[Tensor, "_ _"]:
    """A mask of the synapses of a fully connected layer, laid out as its weight is."""
    return synapses.T if known_kind(module).unit_axis == 1 else synapses


def size_of(module: nn.Module) -> tuple[int, int]:
    """How many units and features a layer has, groups counted in."""
    if isinstance(module, JointView):
        sizes = [size_of(matrix) for matrix in module.matrices]
        return sizes[0][0], sum(features for _, features in sizes)
    kind = known_kind(module)
    shape, groups = weight_of(module).shape, groups_of(module)
    units, features = shape[kind.unit_axis] // gates_of(module), shape[kind.feature_axis]
    return (units * groups, features) if kind.unit_axis == 1 else (units, features * groups)


def select(
    tensor: Tensor, module: nn.Module, shape: torch.Size, units: Tensor | None, features: Tensor | None
) -> Tensor:
    """What remains of a tensor laid out like a layer's weight; None keeps all.

    Args:
        tensor: the weight, its gradient, or state of an optimizer; axes of another size than the weight's, such
            as the ones of a factored moment, stay as they are.
        module: the layer.
        shape: of the weight.
        units: indices of the units that remain, ascending, in equal numbers in every group.
        features: indices of the features that remain, likewise.
    """
    kind = known_kind(module)
    if units is not None:
        units = rows_of(units, module, shape[kind.unit_axis])
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


def rows_of(units: Int64[Tensor, "_"], module: nn.Module, rows: int) -> Int64[Tensor, "_"]:
    """Indices of the values that some units have along the weight's axis of units, or in the bias, ascending.

    Args:
        units: their indices.
        module: the layer.
        rows: values of all units.
    """
    if gates_of(module) == 1:
        return units
    chosen = torch.zeros(rows // gates_of(module), dtype=torch.bool, device=units.device)
    chosen[units] = True
    return by_row(chosen, module).nonzero().flatten()


def between(module: nn.Module, units: Bool[Tensor, "_"], features: Bool[Tensor, "_"]) -> Bool[Tensor, "..."]:
    """Which weights lie between the given features and units, in the weight's shape."""
    kind = known_kind(module)
    shape, groups = weight_of(module).shape, groups_of(module)
    units = by_row(units, module)
    through, within = (units, features) if kind.unit_axis == 0 else (features, units)
    blocks = through.view(groups, -1, 1) & within.view(groups, 1, -1)
    return blocks.flatten(0, 1).view(*shape[:2], *[1] * (len(shape) - 2)).expand(shape)
