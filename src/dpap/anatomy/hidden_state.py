"""Hidden state: what modules keep from call to call, such as membranes, preserved while a network is studied.

State is what a forward leaves behind: tensors among a module's attributes, also in its lists and dictionaries
(SpikingJelly's memories), and buffers that it replaces (snnTorch's membranes).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from dpap.anatomy.layers import layer_kind
from dpap.anatomy.neurons import neuron_kind, reset_module
from dpap.anatomy.recurrent import SIZES, is_recurrent

_OF_ANY_MODULE = frozenset(vars(nn.Module()))
_SIZES = frozenset(
    ("in_features", "out_features", "in_channels", "out_channels", "num_features", "num_parameters", "groups")
)
"""Attributes that surgery sets; they are not state."""


def _sizes_of(module: nn.Module) -> frozenset[str]:
    """Names of a module's attributes that surgery sets."""
    if is_recurrent(module):
        return frozenset(SIZES)
    kind = layer_kind(module)
    return _SIZES if kind is None else _SIZES.union(kind.unit_counts, kind.feature_counts)


@dataclass
class _Buffer:
    """A buffer as it was: the tensor, its version, and its values."""

    tensor: Tensor
    version: int
    values: Tensor

    @classmethod
    def of(cls, tensor: Tensor) -> "_Buffer":
        return cls(tensor, _version(tensor), tensor.detach().clone())

    @property
    def changed(self) -> bool:
        """Whether something was written into it; one that surgery sliced has another shape."""
        if self.version == _version(self.tensor) or self.tensor.shape != self.values.shape:
            return False
        return not torch.equal(self.tensor, self.values.to(self.tensor.dtype))


@dataclass(eq=False)
class _Preserved:
    """A module's attributes and buffers as they were."""

    attributes: dict[str, Any]
    buffers: dict[str, _Buffer | None]

    @classmethod
    def of(cls, module: nn.Module) -> "_Preserved":
        attributes = {name: value for name, value in vars(module).items() if name not in _OF_ANY_MODULE}
        buffers = {
            name: None if tensor is None else _Buffer.of(tensor) for name, tensor in module._buffers.items()
        }
        return cls(attributes, buffers)

    def put_copies(self, module: nn.Module, copies: dict[int, Any]) -> None:
        """Let the module work on copies of what is preserved."""
        self._put(module, {name: _copy(value, copies) for name, value in self.attributes.items()})
        for name, buffer in self.buffers.items():
            if buffer is not None and buffer.tensor.requires_grad:
                module._buffers[name] = buffer.values.clone()

    def put_back(self, module: nn.Module) -> None:
        """Restore the module."""
        self._put(module, self.attributes)

    def _put(self, module: nn.Module, attributes: dict[str, Any]) -> None:
        now = vars(module)
        for name in [name for name in now if name not in _OF_ANY_MODULE and name not in self.attributes]:
            # a forward on the instance belongs to staining, which removes it itself
            if name != "forward":
                del now[name]
        sizes = _sizes_of(module)
        for name, value in attributes.items():
            if name not in sizes and name != "forward":
                now[name] = value
        for name in [name for name in module._buffers if name not in self.buffers]:
            del module._buffers[name]
        for name, buffer in self.buffers.items():
            module._buffers[name] = None if buffer is None else buffer.tensor
            if buffer is not None and buffer.changed:
                with torch.no_grad():
                    buffer.tensor.copy_(buffer.values)
                buffer.version = _version(buffer.tensor)


_PRESERVED: "WeakKeyDictionary[nn.Module, list[_Preserved]]" = WeakKeyDictionary()


@contextmanager
def preserved_state(model: nn.Module) -> Iterator[None]:
    """Preserve every module's hidden state, reset it meanwhile, and restore it afterwards.

    State may be of any batch size and part of an autograd graph: the network works on copies meanwhile.
    """
    modules = list(model.modules())
    for module in modules:
        _PRESERVED.setdefault(module, []).append(_Preserved.of(module))
    try:
        reset_state(model)
        yield
    finally:
        for module in modules:
            _PRESERVED[module].pop().put_back(module)
            if not _PRESERVED[module]:
                del _PRESERVED[module]


def reset_state(model: nn.Module) -> None:
    """Reset a network's state to that at the start of a presentation.

    Neurons are reset; other state is, within `preserved_state`, as it was when that began.
    """
    copies: dict[int, Any] = {}
    for module in model.modules():
        if module in _PRESERVED:
            _PRESERVED[module][-1].put_copies(module, copies)
    for module in model.modules():
        reset_module(module)


def slice_state(module: nn.Module, axis: int, size: int, index: Tensor) -> Callable[[], None]:
    """Keep only some features of a module's hidden state; within `preserved_state`, of that which is preserved.

    Args:
        module: neurons or any other module.
        axis: of its activity that counts features, from the end.
        size: features that there are; tensors of another size along the axis are left alone.
        index: of the features that remain.

    Returns:
        A function that undoes it.
    """
    undo: list[Callable[[], None]] = []

    def sliced(value: Any) -> Any:
        if isinstance(value, nn.Parameter):
            return value
        if isinstance(value, Tensor):
            if value.ndim < -axis or value.shape[axis] != size:
                return value
            return value.detach().index_select(axis, index.to(value.device))
        if type(value) is tuple:
            parts = tuple(sliced(part) for part in value)
            return value if all(new is old for new, old in zip(parts, value, strict=True)) else parts
        if type(value) in (list, dict):
            for place, part in list(value.items() if isinstance(value, dict) else enumerate(value)):
                new = sliced(part)
                if new is not part:
                    undo.append(lambda place=place, part=part: value.__setitem__(place, part))  # type: ignore[misc]
                    value[place] = new
        return value

    all_preserved: list[_Preserved] | list[None] = _PRESERVED.get(module) or [None]
    for preserved in all_preserved:
        _slice_attributes(module, preserved, sliced, undo)
        _slice_buffers(module, preserved, sliced, undo)

    def undo_all() -> None:
        for step in reversed(undo):
            step()

    return undo_all


def state_buffers(module: nn.Module) -> frozenset[str]:
    """Names of a neuron's buffers that are state: those that no state_dict stores."""
    kind = neuron_kind(module)
    return frozenset(module._non_persistent_buffers_set if kind is not None and kind.spikes else ())


def _slice_attributes(
    module: nn.Module,
    preserved: _Preserved | None,
    sliced: Callable[[Any], Any],
    undo: list[Callable[[], None]],
) -> None:
    attributes = vars(module) if preserved is None else preserved.attributes

    def put_back(name: str, old: Any) -> None:
        kept = preserved is not None and preserved in _PRESERVED.get(module, ())
        (attributes if kept else vars(module))[name] = old

    for name, value in list(attributes.items()):
        if name in _OF_ANY_MODULE:
            continue
        new = sliced(value)
        if new is not value:
            undo.append(lambda name=name, value=value: put_back(name, value))  # type: ignore[misc]
            attributes[name] = new


def _slice_buffers(
    module: nn.Module,
    preserved: _Preserved | None,
    sliced: Callable[[Any], Any],
    undo: list[Callable[[], None]],
) -> None:
    def put_back(name: str, old: Tensor) -> None:
        if preserved is not None and preserved in _PRESERVED.get(module, ()):
            preserved.buffers[name] = _Buffer.of(old)
        else:
            module._buffers[name] = old

    for name in state_buffers(module):
        if preserved is None:
            old = module._buffers[name]
        else:
            buffer = preserved.buffers.get(name)
            old = None if buffer is None else buffer.tensor
        new = sliced(old)
        if new is old or old is None:
            continue
        undo.append(lambda name=name, old=old: put_back(name, old))  # type: ignore[misc]
        if preserved is None:
            module._buffers[name] = new
        else:
            preserved.buffers[name] = _Buffer.of(new)


def _copy(value: Any, copies: dict[int, Any]) -> Any:
    """Detached copies of tensors, in new containers; everything else stays the same object."""
    if isinstance(value, nn.Parameter) or not isinstance(value, Tensor | list | dict | tuple):
        return value
    if id(value) in copies:
        return copies[id(value)]
    copied: Any = value
    if isinstance(value, Tensor):
        copied = value.detach().clone()
    elif type(value) is list:
        copied = copies[id(value)] = []
        copied.extend(_copy(part, copies) for part in value)
    elif type(value) is dict:
        copied = copies[id(value)] = {}
        copied.update({key: _copy(part, copies) for key, part in value.items()})
    elif type(value) is tuple:
        copied = tuple(_copy(part, copies) for part in value)
    copies[id(value)] = copied
    return copied


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
