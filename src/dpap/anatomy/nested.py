"""Floating-point tensors inside whatever a network takes and gives: tuples, lists, dictionaries of them."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor


def float_tensors(value: Any) -> Iterator[Tensor]:
    """All of them, in order."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from float_tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from float_tensors(part)


def map_floats(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same containers with each of them changed."""
    if isinstance(value, Tensor):
        return change(value) if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: map_floats(part, change) for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [map_floats(part, change) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value
