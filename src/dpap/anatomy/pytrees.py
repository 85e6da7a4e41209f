"""Inputs and outputs of networks: tensors in tuples, lists, dictionaries and dataclasses."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor, nn

Inputs = tuple[Any, ...] | dict[str, Any]
"""What a network's forward takes: positional arguments, or keyword arguments."""


def run(model: nn.Module, inputs: Inputs) -> Any:
    """One forward."""
    return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


def float_tensors(value: Any) -> Iterator[Tensor]:
    """All floating-point tensors, in order."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from float_tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from float_tensors(part)
    elif is_dataclass(value) and not isinstance(value, type):
        for item in fields(value):
            yield from float_tensors(getattr(value, item.name))


def map_floats(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same containers with each floating-point tensor changed."""
    if isinstance(value, Tensor):
        return change(value) if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: map_floats(part, change) for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [map_floats(part, change) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if is_dataclass(value) and not isinstance(value, type):
        given = [item.name for item in fields(value) if item.init]
        return replace(value, **{name: map_floats(getattr(value, name), change) for name in given})
    return value
