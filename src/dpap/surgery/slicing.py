"""Slice parameters, buffers, gradients and optimizer state to what remains, in place, with a way to undo it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from dpap.anatomy import Wiring
from dpap.anatomy.hidden_state import accept, make_persistent, slice_state
from dpap.anatomy.layers import (
    bias_of,
    gates_of,
    is_depthwise,
    matrices_of,
    owner_of,
    rows_of,
    select,
    size_of,
    weight_of,
)
from dpap.anatomy.ownership import tensor_of
from dpap.anatomy.recurrent import counts_of, flatten, is_recurrent
from dpap.anatomy.staining.dye import Site
from dpap.anatomy.wiring import Attachment, WeightLayer
from dpap.surgery.equivalence import CompactionError
from dpap.surgery.optimizer import change_state, check_state
from dpap.surgery.silence import unit_parts
from dpap.surgery.timesteps import keep_timesteps

Undo = Callable[[], None]


@dataclass(frozen=True)
class Kept:
    """What remains: indices of units by weight layer, of features by reader."""

    units: dict[str, Tensor]
    features: dict[str | Site, Tensor]

    @property
    def everything(self) -> bool:
        """Whether nothing leaves."""
        return not self.units and not self.features


def keep_only(model: nn.Module, wiring: Wiring, kept: Kept, optimizers: Sequence[Optimizer]) -> Undo:
    """Slice parameters, buffers, gradients, moments and hidden state to what remains.

    Tensors stay the same objects, so that references and hooks stay valid.

    Returns:
        A function that undoes it.

    Raises:
        CompactionError: where something cannot be sliced; nothing is changed then.
    """
    for optimizer in optimizers:
        check_state(optimizer)
    slicer = _Slicer(optimizers)
    try:
        for layer in wiring.layers.values():
            slicer.slice_layer(layer, kept)
        for module in {owner_of(layer.module): None for layer in wiring.layers.values()}:
            if is_recurrent(module):
                slicer.recount(module)
        for attachment in wiring.attachments.values():
            slicer.slice_attachment(attachment, kept)
        for site, neuron in wiring.neurons.items():
            if site.call == 0 and not neuron.incoming and site in kept.features:
                module, features = model.get_submodule(site.module), kept.features[site]
                slicer.undo.append(slice_state(module, neuron.axis, neuron.features, features))
                slicer.undo.append(keep_timesteps(module, features))
    except BaseException:
        slicer.put_back()
        raise
    return slicer.put_back


class _Slicer:
    """Slices, and records how to undo it."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = optimizers
        self.undo: list[Undo] = []
        self._sliced: dict[Tensor, str] = {}

    def put_back(self) -> None:
        for step in reversed(self.undo):
            step()
        self.undo.clear()

    def slice_layer(self, layer: WeightLayer, kept: Kept) -> None:
        module = layer.module
        units, features = kept.units.get(layer.name), kept.features.get(layer.name)
        if units is None and features is None:
            return
        matrices = list(matrices_of(module))
        for matrix, read in matrices:
            weight, bias = weight_of(matrix), bias_of(matrix)
            inside = features
            if features is not None and len(matrices) > 1:
                inside = features[(features >= read.start) & (features < read.stop)] - read.start
            remains = partial(select, module=matrix, shape=weight.shape, units=units, features=inside)
            self._change(layer.name, weight, remains)
            if units is not None and bias is not None:
                rows = rows_of(units, matrix, len(bias))
                self._change(layer.name, bias, partial(_along, axis=0, size=len(bias), index=rows))
        if units is not None:
            self._set_number(owner_of(module), layer.kind.unit_counts, len(units) * gates_of(module))
        if features is not None:
            self._set_number(owner_of(module), layer.kind.feature_counts, len(features))
        for name, belonging in layer.further.items():
            for axis, index in ((belonging.unit, units), (belonging.feature, features)):
                if axis is not None and index is not None:
                    self._slice_further(layer.name, tensor_of(module, name), axis, index)
                    self._store(module, name)

    def _slice_further(self, name: str, tensor: Tensor, axis: int, index: Tensor) -> None:
        # one tensor may be sliced along two axes in turn
        self._sliced.pop(tensor, None)
        self._change(name, tensor, partial(_along, axis=axis, size=tensor.shape[axis], index=index))

    def recount(self, module: nn.Module) -> None:
        """Let a recurrent module's counts, and how its weights lie in memory, follow what was sliced."""
        for name, count in counts_of(module).items():
            self._set_number(module, (name,), count)
        flatten(module)

    def slice_attachment(self, attachment: Attachment, kept: Kept) -> None:
        module, features = attachment.module, kept.features.get(attachment.name)
        if features is None:
            return
        units, channels = size_of(module) if is_depthwise(module) else (0, 0)
        for tensor, axis in list(unit_parts(attachment)):
            along = partial(_along, axis=axis, size=tensor.shape[axis], index=features)
            self._change(attachment.name, tensor, along)
        for name in attachment.tensors:
            self._store(module, name)
        self._set_number(module, ("num_features", "num_parameters"), len(features))
        if not any(True for _ in module.children()):
            self._set_number(module, ("out_channels",), len(features))
        if units:
            self._set_number(module, ("in_channels", "groups"), len(features) * channels // units)

    def _change(self, name: str, tensor: Tensor, change: Callable[[Tensor], Tensor]) -> None:
        """Change a tensor, its gradient and its moments in the same way."""
        if tensor in self._sliced:
            raise CompactionError(
                f"{self._sliced[tensor]} and {name} share a parameter, so its units cannot be "
                "removed for each of them; nothing was removed"
            )
        self._sliced[tensor] = name
        change = partial(_laid_out_alike, change=change)
        data, gradient = tensor.data, tensor.grad
        if isinstance(tensor, Parameter):
            for optimizer in self.optimizers:
                self.undo.append(change_state(optimizer, tensor, change))

        def put_back() -> None:
            _replace(tensor, data, gradient)

        self.undo.append(put_back)
        _replace(tensor, change(data), None if gradient is None else change(gradient))

    def _store(self, module: nn.Module, name: str) -> None:
        """Let a state_dict hold a tensor that was cut, for a constructor makes it in its full size only."""
        owner, _, own = name.rpartition(".")
        self.undo.append(make_persistent(module.get_submodule(owner), own))

    def _set_number(self, module: nn.Module, names: Sequence[str], new: int) -> None:
        for name in names:
            old = getattr(module, name, None)
            if isinstance(old, int) and not isinstance(old, bool):
                self.undo.append(partial(setattr, module, name, old))
                setattr(module, name, new)


def _replace(tensor: Tensor, data: Tensor, gradient: Tensor | None) -> None:
    tensor.grad = None
    # a graph that is still alive, such as that of the last loss, holds a node that expects gradients of the old
    # shape; torch makes a new one where the precision changes
    tensor.data = data.new_empty(0, dtype=torch.float16 if data.dtype != torch.float16 else torch.float32)
    tensor.data = data
    tensor.grad = gradient
    accept(tensor)


def _laid_out_alike(tensor: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change a tensor and keep its memory format."""
    changed = change(tensor)
    if not tensor.is_contiguous():
        for dimensions, memory_format in ((4, torch.channels_last), (5, torch.channels_last_3d)):
            if tensor.ndim == dimensions and tensor.is_contiguous(memory_format=memory_format):
                return changed.contiguous(memory_format=memory_format)
    return changed


def _along(tensor: Tensor, axis: int, size: int, index: Tensor) -> Tensor:
    return tensor if tensor.shape[axis] != size else tensor.index_select(axis, index.to(tensor.device))
