"""Whether the tensors of a stored network fit each other, as those of a network that was made smaller do."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dpap.anatomy.layers import LayerKind, bias_of, groups_of, is_depthwise, layer_kind, size_of, weight_of
from dpap.anatomy.neurons import neuron_kind
from dpap.anatomy.recurrent import is_recurrent, parts_of
from dpap.surgery.timesteps import AXES, BUFFER

Shape = tuple[int, ...]
Stored = Mapping[str, Tensor]

_MOST_AXES = 8
_TURNS = (nn.Sequential.forward,)
"""Forwards that call the children in turn, each with what the one before returned."""
_WIDTH_KEPT = (
    *(nn.Identity, nn.Flatten, nn.modules.dropout._DropoutNd, nn.Upsample, nn.modules.padding._ConstantPadNd),
    *(nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd),
    *(nn.modules.pooling._AdaptiveAvgPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd),
)
"""Modules that return as many channels as they are given, or flatten all of these alike."""


def contradictions(model: nn.Module, stored: Stored, layers: Mapping[str, Any] | None) -> Iterator[str]:
    """What a network that was made smaller cannot have, in words.

    Args:
        model: the network before, to whose layers the tensors belong.
        stored: tensors, each with as many axes as that of the network, and none longer.
        layers: their sizes as stored with them: path -> "size" (units, features, groups); None where none were.
    """
    for path, module in model.named_modules():
        shapes = _shapes(path, module, stored)
        kind = layer_kind(module)
        for name, shape in shapes.items():
            if 0 in shape and 0 not in _tensor(module, name).shape:
                yield f"{_join(path, name)}: nothing is left of it, {shape}"
        if kind is not None and kind.weight in shapes:
            yield from _of_layer(path, module, kind, shapes)
            if layers is not None:
                yield from _of_size(path, module, kind, shapes, layers.get(path, {}))
        elif is_recurrent(module):
            yield from _of_recurrent(path, module, shapes)
        elif isinstance(module, nn.Embedding | nn.EmbeddingBag):
            if "weight" in shapes and shapes["weight"][0] != module.num_embeddings:
                yield f"{_join(path, 'weight')}: {shapes['weight'][0]} entries, not {module.num_embeddings}"
        elif type(module).__module__.startswith("torch.nn.") or neuron_kind(module) is not None:
            yield from _of_units(path, module, shapes)
        yield from _of_timesteps(path, stored)
        if type(module).forward in _TURNS or getattr(module, "in_turn", False):
            yield from _of_chain(path, module, stored)


def _shapes(path: str, module: nn.Module, stored: Stored) -> dict[str, Shape]:
    """Stored shapes of a module's own tensors."""
    own = (*module._parameters, *module._buffers)
    named = ((name, stored.get(_join(path, name))) for name in own if _tensor(module, name) is not None)
    return {name: tuple(tensor.shape) for name, tensor in named if tensor is not None}


def _tensor(module: nn.Module, name: str) -> Any:
    return module._parameters.get(name, module._buffers.get(name))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _of_layer(path: str, module: nn.Module, kind: LayerKind, shapes: dict[str, Shape]) -> Iterator[str]:
    weight, dense = shapes[kind.weight], tuple(weight_of(module).shape)
    name = _join(path, kind.weight)
    if weight[2:] != dense[2:]:
        yield f"{name}: {weight}, of which all but the first two sizes must be {dense[2:]}, as in the network"
    groups = groups_left(module, weight)
    if groups < 1 or weight[0] % groups:
        yield f"{name}: {weight}, which cannot be cut into {max(groups, 0)} groups"
        return
    if is_depthwise(module) and _size(kind, weight, groups)[0] * dense[0] != weight[0] * size_of(module)[0]:
        yield f"{name}: {weight}, other kernels a channel than in the network, {dense}"
    units, bias = _size(kind, weight, groups)[0], bias_of(module)
    one_a_unit = bias is not None and tuple(bias.shape) == size_of(module)[:1]
    if one_a_unit and shapes.get(kind.bias, (units,)) != (units,):
        yield f"{_join(path, kind.bias)}: {shapes[kind.bias]} for the {units} units of {name}, {weight}"


def groups_left(module: nn.Module, weight: Shape) -> int:
    """Groups of a layer whose weight has a stored shape: depthwise convolutions lose them with their channels."""
    if not is_depthwise(module):
        return groups_of(module)
    kind, (units, features) = layer_kind(module), size_of(module)
    return weight[0] if kind is not None and kind.unit_axis == 1 else weight[0] * features // units


def _size(kind: LayerKind, weight: Shape, groups: int) -> tuple[int, int]:
    """Units and features of a layer, by the shape of its weight."""
    units, features = weight[kind.unit_axis], weight[kind.feature_axis]
    return (units * groups, features) if kind.unit_axis == 1 else (units, features * groups)


def _of_size(
    path: str, module: nn.Module, kind: LayerKind, shapes: dict[str, Shape], layer: Mapping[str, Any]
) -> Iterator[str]:
    weight = shapes[kind.weight]
    found = [*_size(kind, weight, groups := groups_left(module, weight)), groups]
    if "size" in layer and layer["size"] != found:
        yield f"{path}: units, features and groups {layer['size']}, but {found} by its weight, {weight}"


def _of_recurrent(path: str, module: nn.Module, shapes: dict[str, Shape]) -> Iterator[str]:
    parts = parts_of("", module)
    first = parts[0][0]
    outer = shapes.get(first.hidden.matrices[0].names[0])
    if outer is None:
        return
    gates = first.hidden.matrices[0].gates
    hidden, emitted = outer[0] // gates, outer[0] // gates
    if first.projection is not None:
        emitted = shapes.get(first.projection.names[0], (emitted,))[0]
    for number, layer in enumerate(parts):
        features = outer[1] if number == 0 else emitted * len(layer)
        for part in layer:
            expected: dict[str, Shape] = {}
            for matrix, read in zip(part.hidden.matrices, (features, emitted), strict=True):
                weight, bias = matrix.names
                expected |= {weight: (gates * hidden, read), bias: (gates * hidden,)}
            if part.projection is not None:
                expected[part.projection.names[0]] = (emitted, hidden)
            for name, shape in expected.items():
                if name in shapes and shapes[name] != shape:
                    yield f"{_join(path, name)}: {shapes[name]}, not {shape} as its other weights are"


def _of_units(path: str, module: nn.Module, shapes: dict[str, Shape]) -> Iterator[str]:
    """Values for each unit, as of norms: what had equally many has equally many."""
    first: dict[int, str] = {}
    for name, shape in shapes.items():
        dense = _tensor(module, name)
        if dense.ndim == 1 and name not in (BUFFER, AXES):
            other = first.setdefault(len(dense), name)
            if shape != shapes[other]:
                yield f"{_join(path, name)}: {shape}, but {shapes[other]} as {_join(path, other)}"


def _of_timesteps(path: str, stored: Stored) -> Iterator[str]:
    alive, axes = (stored.get(_join(path, name)) for name in (BUFFER, AXES))
    if alive is None or axes is None:
        return
    name = _join(path, BUFFER)
    if alive.dtype != torch.bool or alive.ndim != 2 or 0 in alive.shape:
        yield f"{name}: {alive.dtype} {tuple(alive.shape)}, not truth values [time, unit]"
    if axes.dtype != torch.int64 or tuple(axes.shape) != (2,):
        yield f"{_join(path, AXES)}: {axes.dtype} {tuple(axes.shape)}, not two whole numbers"
    elif not all(-_MOST_AXES <= axis < _MOST_AXES for axis in axes.tolist()) or axes[0] == axes[1]:
        yield f"{_join(path, AXES)}: {axes.tolist()}, not two axes of an output"


def _of_chain(path: str, chain: nn.Module, stored: Stored) -> Iterator[str]:
    """Layers in turn: each reads what the one before emits, or as many features of each of its channels as before."""
    # a layer, its units in the network and as stored; of what a network is given nothing is removed
    before: tuple[str, int, int] | None = None if path else ("the input", 1, 1)
    for child, module in chain._modules.items():  # with each repetition of a module
        if module is None:
            continue
        name = _join(path, child)
        kind, own = layer_kind(module), type(module).__module__.startswith("torch.nn.")
        weight = None if kind is None else stored.get(_join(name, kind.weight))
        if kind is not None and weight is not None and own and not isinstance(module, nn.Bilinear):
            shape = tuple(weight.shape)
            units, features = _size(kind, shape, groups_left(module, shape))
            dense_units, dense_features = size_of(module)
            yield from _of_turn(name, "features", (dense_features, features), before)
            before = (name, dense_units, units)
        elif is_recurrent(module):
            matrix = parts_of("", module)[0][0].hidden.matrices[0]
            weight = stored.get(_join(name, matrix.names[0]))
            if weight is not None:
                yield from _of_turn(name, "features", (size_of(matrix)[1], weight.shape[1]), before)
            before = None
        elif isinstance(module, nn.modules.batchnorm._NormBase | nn.PReLU):
            dense, values = _tensor(module, "weight"), stored.get(_join(name, "weight"))
            if dense is not None and values is not None and len(dense) > 1:
                yield from _of_turn(name, "values", (len(dense), len(values)), before)
        elif isinstance(module, _WIDTH_KEPT):
            continue
        elif neuron_kind(module) is not None:
            alive = stored.get(_join(name, BUFFER))
            if alive is not None and alive.ndim == 2 and before is not None and alive.shape[1] != before[2]:
                yield f"{_join(name, BUFFER)}: for {alive.shape[1]} units, but {before[0]} has {before[2]}"
        else:
            before = None


def _of_turn(
    name: str, what: str, sizes: tuple[int, int], before: tuple[str, int, int] | None
) -> Iterator[str]:
    if before is None:
        return
    other, dense, left = before
    if sizes[1] * dense != sizes[0] * left:
        yield f"{name}: {sizes[1]} of {sizes[0]} {what}, but it follows {other}, of which {left} of {dense} are left"
