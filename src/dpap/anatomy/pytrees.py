"""Inputs and outputs of networks: tensors in whatever holds them, such as tuples, mappings, dataclasses and objects."""

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

Inputs = tuple[Any, ...] | dict[str, Any] | list[Any]
"""What a network's forward takes: positional arguments, or keyword arguments; a list holds several examples of it."""


def examples_of(inputs: Inputs) -> list[Inputs]:
    """The examples that a network is studied on, one by one; a tensor is the only argument."""
    examples = inputs if isinstance(inputs, list) else [inputs]
    return [(example,) if isinstance(example, Tensor) else example for example in examples]


Outputs = Callable[[Any], Any]
"""A function of what a network's forward returns: the tensors that must keep their width, in any containers."""


def keeping(outputs: Outputs | None, returned: Any) -> Any:
    """What must keep its width of what a forward returned; everything without a function that says so.

    Raises:
        TypeError: where the function fails, or gives no tensor.
    """
    if outputs is None:
        return returned
    try:
        kept = outputs(returned)
    except Exception as error:
        raise TypeError(
            f"outputs is called with what the network's forward returns, here {_described(returned)}, and failed: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not any(True for _ in all_tensors(kept)):
        raise TypeError(
            f"outputs must give the tensors that keep their width, out of {_described(returned)}; it gave "
            f"{_described(kept)}"
        )
    return kept


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with {', '.join(map(str, value))}"
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, list | tuple) else "")


def run(model: nn.Module, inputs: Inputs) -> Any:
    """One forward, of several examples one each; the network works on copies of the tensors and of what holds them, and
    may change these.
    """
    if isinstance(inputs, list):
        return [run(model, example) for example in examples_of(inputs)]
    given = map_tensors(inputs, Tensor.clone)
    return model(**given) if isinstance(given, dict) else model(*given)


def all_tensors(value: Any) -> Iterator[Tensor]:
    """All tensors, in order."""
    yield from _tensors(value, set())


def float_tensors(value: Any) -> Iterator[Tensor]:
    """All tensors of real or complex numbers, in order."""
    return (tensor for tensor in all_tensors(value) if is_float(tensor))


def first_float(values: Any, options: Any = None) -> Tensor:
    """The first tensor of numbers in a call or in what it returns; a compiler can follow the usual case."""
    if isinstance(values, tuple):
        for value in values:
            if not isinstance(value, Tensor):
                break
            if is_float(value):
                return value
    return next(float_tensors((values, options)))


def map_floats(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same containers with each tensor of real or complex numbers changed."""
    return map_tensors(value, lambda tensor: change(tensor) if is_float(tensor) else tensor)


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same containers with each tensor changed; a tensor that stands in two places is changed once."""
    return _mapped(value, change, {})


def is_float(tensor: Tensor) -> bool:
    """Whether a tensor holds real or complex numbers, rather than integers or truth values."""
    return tensor.is_floating_point() or tensor.is_complex()


def doubled(tensor: Tensor) -> Tensor:
    """A tensor of real or complex numbers in double precision."""
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def precision_of(model: nn.Module) -> torch.dtype | None:
    """The precision of a network; None where its parameters have several."""
    found = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    return found.pop() if len(found) == 1 else None


def in_precision(inputs: Inputs, before: torch.dtype | None, now: torch.dtype | None) -> Inputs:
    """Inputs for a network that had one precision and has another now: tensors that had its precision follow."""
    if before is None or now is None or before == now:
        return inputs
    followed: Inputs = map_tensors(
        inputs, lambda tensor: tensor.to(now) if tensor.dtype == before else tensor
    )
    return followed


def nan_like(tensor: Tensor) -> Tensor:
    """NaN in the place of every number, in both parts of complex ones."""
    return torch.full_like(tensor, complex(torch.nan, torch.nan) if tensor.is_complex() else torch.nan)


def _tensors(value: Any, within: set[int]) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
        return
    parts = _parts(value)
    if parts is not None and id(value) not in within:
        within.add(id(value))
        for part in parts.values():
            yield from _tensors(part, within)
        within.discard(id(value))


def _parts(value: Any) -> dict[Any, Any] | None:
    """What a container holds, by key, place or name; None where it is none."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in fields(value) if hasattr(value, item.name)}
    opaque = isinstance(value, type | FunctionType | MethodType | ModuleType | nn.Module)
    if opaque or not hasattr(value, "__dict__"):
        return None
    return dict(vars(value))


def _mapped(value: Any, change: Callable[[Tensor], Tensor], done: dict[int, tuple[Any, Any]]) -> Any:
    if id(value) in done:
        return done[id(value)][1]
    parts = None if isinstance(value, Tensor) else _parts(value)
    if isinstance(value, Tensor):
        mapped: Any = change(value)
    elif parts is None:
        return value
    elif isinstance(value, tuple):
        new = [_mapped(part, change, done) for part in value]
        mapped = type(value)(*new) if hasattr(value, "_fields") else type(value)(new)
    else:
        mapped = _holding(value, parts, lambda part: _mapped(part, change, done), done)
    # what was changed is kept too, so that no other object gets its id meanwhile
    done[id(value)] = (value, mapped)
    return mapped


def _holding(
    value: Any, parts: dict[Any, Any], new: Callable[[Any], Any], done: dict[int, tuple[Any, Any]]
) -> Any:
    """A copy of a container that holds something else in each place; objects that hold no tensor stay the same."""
    if type(value) is dict:
        return {key: new(part) for key, part in parts.items()}
    if type(value) is list:
        return [new(part) for part in value]
    container = isinstance(value, Mapping | list)
    if not container and next(all_tensors(value), None) is None:
        return value
    copied = copy(value)
    done[id(value)] = (value, copied)
    try:
        for place, part in parts.items():
            changed = new(part)
            if changed is not part:
                copied.__setitem__(place, changed) if container else object.__setattr__(
                    copied, place, changed
                )
    except (AttributeError, TypeError):
        if not isinstance(value, Mapping):
            raise
        # a mapping that cannot be written to
        return {key: new(part) for key, part in parts.items()}
    return copied
