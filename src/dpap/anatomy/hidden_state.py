"""Hidden state: what modules keep from call to call, such as membranes, preserved while a network is studied.

State is what a forward leaves behind: tensors among a module's attributes, also in its lists and dictionaries
(SpikingJelly's memories), and buffers that it replaces (snnTorch's membranes).
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any
from weakref import ProxyTypes

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

from dpap.anatomy.contents import MUTABLE, copied, holds_constants, is_constant, numbers_in, refill
from dpap.anatomy.frameworks import STATES, qualified_name
from dpap.anatomy.layers import layer_kind
from dpap.anatomy.neurons import neuron_kind, reset_module
from dpap.anatomy.randomness import RandomState, is_generator
from dpap.anatomy.recurrent import SIZES, is_recurrent
from dpap.anatomy.snapshot import Snapshot

_OF_ANY_MODULE = frozenset(vars(nn.Module()))
_TENSORS = ("_parameters", "_buffers")
_TABLES = frozenset(name for name, value in vars(nn.Module()).items() if isinstance(value, dict | set))
"""Attributes of every module that hold its parameters, buffers, children and hooks."""
_LEFT_OUT = "_non_persistent_buffers_set"
"""That of them which names the buffers that no state_dict holds."""
_WITHOUT_STATE = frozenset(
    (
        *("builtins", "torch", "numpy", "types", "functools", "enum", "typing", "inspect"),
        *("weakref", "_weakrefset"),
    )
)
"""Libraries whose objects no forward changes, that are copied as values, or that change by themselves."""
_MISSING = object()
DEPTH = 2
"""Objects that a module holds, and those that these hold, are preserved; what lies deeper is not."""
_SIZES = frozenset(
    ("in_features", "out_features", "in_channels", "out_channels", "num_features", "num_parameters", "groups")
)
"""Attributes that surgery sets; they are not state."""


def sizes_of(module: nn.Module) -> frozenset[str]:
    """Names of a module's attributes that surgery sets."""
    if is_recurrent(module):
        return frozenset(SIZES)
    kind = layer_kind(module)
    return _SIZES if kind is None else _SIZES.union(kind.unit_counts, kind.feature_counts)


@dataclass(eq=False)
class _Preserved:
    """What a module, or another object that one holds, has as its own.

    Attributes:
        attributes: other than those that every module has.
        tables: parameters, buffers, children and hooks, by the name of the attribute that holds them.
        training: mode of a module.
        mutable: names of attributes that a forward may change in place, and of which it works on copies.
        contents: of containers of constants, by name of the attribute: they are refilled where they changed.
    """

    attributes: dict[str, Any]
    tables: dict[str, Any]
    training: bool | None

    def __post_init__(self) -> None:
        self.contents = {
            name: copy(value) for name, value in self.attributes.items() if holds_constants(value)
        }
        self.mutable = [
            name
            for name, value in self.attributes.items()
            if isinstance(value, MUTABLE) and not is_constant(value) and name not in self.contents
        ]

    @classmethod
    def of(cls, owner: object) -> "_Preserved":
        attributes = {name: value for name, value in vars(owner).items() if name not in _OF_ANY_MODULE}
        if not isinstance(owner, nn.Module):
            return cls(attributes, {}, None)
        tables = {name: copy(table) for name, table in vars(owner).items() if name in _TABLES}
        return cls(attributes, tables, owner.training)

    @property
    def buffers(self) -> dict[str, Tensor | None]:
        """Buffers by name."""
        found: dict[str, Tensor | None] = self.tables["_buffers"]
        return found

    def put_copies(self, owner: object, copies: dict[int, Any]) -> None:
        """Let it work on copies of what is preserved."""
        values = self.attributes
        if self.mutable:
            values = {**values, **{name: copied(values[name], copies) for name in self.mutable}}
        self._put(owner, values)
        if isinstance(owner, nn.Module):
            owner.training = bool(self.training)
            self._put_tables(owner, _TENSORS)
            for name, buffer in self.buffers.items():
                if buffer is not None and buffer.requires_grad:
                    owner._buffers[name] = buffer.detach().clone()

    def put_back(self, owner: object) -> None:
        """Restore it."""
        self._put(owner, self.attributes)
        if isinstance(owner, nn.Module):
            owner.training = bool(self.training)
            self._put_tables(owner, self.tables)

    def _put(self, owner: object, attributes: dict[str, Any]) -> None:
        now = vars(owner)
        for name in [name for name in now if name not in _OF_ANY_MODULE and name not in self.attributes]:
            # a forward on the instance belongs to staining, which removes it itself
            if name != "forward":
                del now[name]
        changed = [name for name, value in attributes.items() if now.get(name, _MISSING) is not value]
        if changed:
            sizes = sizes_of(owner) if isinstance(owner, nn.Module) else ()
            for name in changed:
                if name not in sizes and name != "forward":
                    now[name] = attributes[name]
        for name, constants in self.contents.items():
            refill(attributes[name], constants)

    def _put_tables(self, module: nn.Module, names: Iterable[str]) -> None:
        for name in names:
            now, before = vars(module)[name], self.tables[name]
            if list(now) != list(before) or any(now[key] is not before[key] for key in _keys(now)):
                # in place, for handles of hooks refer to the table
                now.clear()
                now.update(before)


@dataclass(frozen=True, eq=False)
class Rest:
    """What an attribute, or a buffer, held before forwards left state in it: where each presentation begins.

    Attributes:
        owner: module, or object that one holds.
        name: of the attribute or buffer.
        buffer: whether it is a buffer.
        value: what it held: nothing, or a value without a batch.
        absent: whether there was no such attribute.
    """

    owner: object
    name: str
    buffer: bool
    value: Any
    absent: bool

    @property
    def now(self) -> Any:
        """What it holds now."""
        return self._table.get(self.name)

    def put(self) -> None:
        """Let it hold that again, in the precision and on the device of what it holds now."""
        now = self.now
        if self.absent:
            self._table.pop(self.name, None)
        elif isinstance(self.value, Tensor) and isinstance(now, Tensor):
            self._table[self.name] = self.value.to(now, copy=True)
        else:
            self._table[self.name] = copied(self.value, {})

    @property
    def _table(self) -> dict[str, Any]:
        return self.owner._buffers if isinstance(self.owner, nn.Module) and self.buffer else vars(self.owner)


@dataclass(eq=False)
class _Network:
    """A network whose state is preserved, with all that its modules hold; `rest`: of what begins elsewhere."""

    model: nn.Module
    owners: list[object]
    preserved: list[_Preserved]
    snapshot: Snapshot
    random: RandomState
    rest: list[Rest]

    @classmethod
    def of(cls, model: nn.Module, rest: Iterable[Rest] = ()) -> "_Network":
        owners, generators = _reachable(model)
        snapshot = Snapshot(owner for owner in owners if isinstance(owner, nn.Module))
        preserved = [_Preserved.of(owner) for owner in owners]
        held = {id(owner) for owner in owners}
        at_rest = [one for one in rest if id(one.owner) in held]
        return cls(model, owners, preserved, snapshot, RandomState(snapshot.devices, generators), at_rest)


_NETWORKS: list[_Network] = []
_PRESERVED: dict[int, list[_Preserved]] = {}
"""Of each module that is preserved now, by its identity: some are equal, or hash, by what they hold (torchmetrics)."""


@contextmanager
def preserved_state(model: nn.Module, rest: Iterable[Rest] = ()) -> Iterator[None]:
    """Preserve all that a network holds, reset its hidden state meanwhile, and restore everything afterwards.

    Parameters, buffers, gradients, modes, hooks, other attributes and the state of random numbers are afterwards as
    they were, bit for bit. State may be of any batch size and part of an autograd graph: the network works on copies
    of it meanwhile.

    Args:
        model: the network.
        rest: what its state is reset to; what is not in it, to what it is when this begins.
    """
    check_initialised(model)
    network = _Network.of(model, rest)
    modules = [
        (owner, preserved)
        for owner, preserved in zip(network.owners, network.preserved, strict=True)
        if isinstance(owner, nn.Module)
    ]
    for module, preserved in modules:
        _PRESERVED.setdefault(id(module), []).append(preserved)
    _NETWORKS.append(network)
    try:
        reset_state(model)
        yield
    finally:
        _NETWORKS.remove(network)
        for module, preserved in modules:
            _PRESERVED[id(module)].remove(preserved)
            if not _PRESERVED[id(module)]:
                del _PRESERVED[id(module)]
        for owner, preserved in zip(network.owners, network.preserved, strict=True):
            preserved.put_back(owner)
        network.snapshot.restore()
        network.random.restore()


def check_initialised(model: nn.Module) -> None:
    """Check that no parameter of a network still waits for its first forward.

    Raises:
        ValueError: where one does.
    """
    lazy = [
        name for name, module in model.named_modules()
        if isinstance(module, LazyModuleMixin) or any(
            map(is_lazy, (*module._parameters.values(), *module._buffers.values()))
        )
    ]  # fmt: skip
    if lazy:
        raise ValueError(
            f"expected a network that has its sizes; got lazy modules that have not run yet ({', '.join(lazy[:3])}): "
            "run one forward of it first, model(example_inputs)"
        )


def reset_state(model: nn.Module, *, weights: bool = True) -> None:
    """Reset a network's state to that at the start of a presentation.

    Neurons are reset; everything else is, within `preserved_state`, as it was when that began.

    Args:
        model: the network.
        weights: whether parameters of weight layers are compared too; not needed where these do not run.
    """
    network = next((one for one in reversed(_NETWORKS) if one.model is model), None)
    if network is not None:
        network.snapshot.restore_meanwhile(weights)
        # an attribute that is a buffer too stays one
        own = [buffer for one in network.preserved if one.tables for buffer in one.buffers.values()]
        copies: dict[int, Any] = {id(one): one for one in own if one is not None and not one.requires_grad}
        for owner, preserved in zip(network.owners, network.preserved, strict=True):
            preserved.put_copies(owner, copies)
        for one in network.rest:
            one.put()
        network.random.restore()
    for module in model.modules():
        reset_module(module)


def left_behind(model: nn.Module) -> list[Rest]:
    """Where a forward left tensors in the place of nothing or of a single value, and what was there before.

    Spiking neurons that are known are left out, as they are reset. Use it within `preserved_state`.
    """
    network = next(one for one in reversed(_NETWORKS) if one.model is model)
    found = []
    for owner, preserved in zip(network.owners, network.preserved, strict=True):
        module = owner if isinstance(owner, nn.Module) else None
        if module is not None and _is_reset(module):
            continue
        attributes = {name: value for name, value in vars(owner).items() if name not in _OF_ANY_MODULE}
        places = [(attributes, preserved.attributes | preserved.contents, False)]
        if module is not None:
            places.append((module._buffers, preserved.buffers, True))
        for table, before, buffer in places:
            for name, value in table.items():
                at_rest = before.get(name)
                if value is not at_rest and numbers_in(at_rest) <= 1 < numbers_in(value):
                    found.append(Rest(owner, name, buffer, copied(at_rest, {}), name not in before))
    return found


def _is_reset(module: nn.Module) -> bool:
    kind = neuron_kind(module)
    return (kind is not None and kind.spikes) or any(
        qualified_name(base) in STATES for base in type(module).__mro__
    )


def accept(tensor: Tensor) -> None:
    """Within `preserved_state`, keep what was just written into a tensor, such as by a removal."""
    for network in _NETWORKS:
        network.snapshot.take(tensor)


def make_persistent(module: nn.Module, name: str) -> Callable[[], None]:
    """Let the state_dict of a module hold a buffer from now on, also after `preserved_state`.

    Returns:
        A function that undoes it.
    """

    def left_out() -> list[set[str]]:
        preserved = _PRESERVED.get(id(module), ())
        return [module._non_persistent_buffers_set, *(one.tables[_LEFT_OUT] for one in preserved)]

    if name not in module._buffers or name not in module._non_persistent_buffers_set:
        return lambda: None
    for names in left_out():
        names.discard(name)

    def undo() -> None:
        for names in left_out():
            names.add(name)

    return undo


def _reachable(model: nn.Module) -> tuple[list[object], list[Any]]:
    """Modules and plain objects that a network holds, registered or not, and generators of random numbers."""
    owners: list[object] = []
    generators: list[Any] = []
    seen: set[int] = set()
    left: list[tuple[Any, int]] = [(model, DEPTH)]
    while left:
        value, depth = left.pop()
        if id(value) in seen or type(value) in ProxyTypes:
            continue  # what a network only refers to belongs to others
        if isinstance(value, nn.Module):
            seen.add(id(value))
            owners.append(value)
            left.extend((child, DEPTH) for child in value._modules.values() if child is not None)
            held = [part for name, part in vars(value).items() if name not in _OF_ANY_MODULE]
            left.extend((part, DEPTH) for part in held)
        elif isinstance(value, list | tuple | set | deque | dict):
            seen.add(id(value))
            left.extend((part, depth) for part in (value.values() if isinstance(value, dict) else value))
        elif is_generator(value):
            seen.add(id(value))
            generators.append(value)
        elif depth and _is_plain(value):
            seen.add(id(value))
            owners.append(value)
            left.extend((part, depth - 1) for part in vars(value).values())
    return owners, generators


def _keys(table: dict[Any, Any] | set[Any]) -> Iterable[Any]:
    return table if isinstance(table, dict) else ()


def _is_plain(value: Any) -> bool:
    """Whether a value is an object of a class of the user's, or of a library, that may keep state in attributes."""
    library = type(value).__module__.partition(".")[0]
    return hasattr(value, "__dict__") and not isinstance(value, type) and library not in _WITHOUT_STATE


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

    all_preserved: list[_Preserved] | list[None] = _PRESERVED.get(id(module)) or [None]
    for preserved in all_preserved:
        _slice_attributes(module, preserved, sliced, undo)
        _slice_buffers(module, preserved, sliced, undo)

    def undo_all() -> None:
        for step in reversed(undo):
            step()

    return undo_all


def unsaved_constants(module: nn.Module, axis: int, size: int) -> list[str]:
    """Plain tensors of a module with a value for each feature that no forward has changed so far.

    No state_dict holds them. Use it within `preserved_state`, after a forward.

    Args:
        module: neurons or any other module.
        axis: of its activity that counts features, from the end.
        size: features that there are.
    """
    found = []
    for preserved in _PRESERVED.get(id(module), ())[:1]:
        for name, value in preserved.attributes.items():
            now = vars(module).get(name)
            if type(value) is not Tensor or not isinstance(now, Tensor) or value.ndim < -axis:
                continue
            # what is zero may be a state at rest
            if value.shape[axis] == size == value.numel() > 1 and torch.equal(value, now) and value.any():
                found.append(name)
    return found


def state_buffers(module: nn.Module) -> frozenset[str]:
    """Names of a module's buffers that are state: of a neuron those that no state_dict stores."""
    if any(qualified_name(base) in STATES for base in type(module).__mro__):
        return frozenset(module._buffers)
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
        kept = preserved is not None and preserved in _PRESERVED.get(id(module), ())
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
    kept = module._buffers if preserved is None else preserved.buffers

    def put_back(name: str, old: Tensor) -> None:
        within = preserved is not None and preserved in _PRESERVED.get(id(module), ())
        (kept if within else module._buffers)[name] = old
        accept(old)

    for name in state_buffers(module):
        old = kept.get(name)
        new = sliced(old)
        if new is old or old is None:
            continue
        undo.append(lambda name=name, old=old: put_back(name, old))  # type: ignore[misc]
        kept[name] = new
        accept(new)
