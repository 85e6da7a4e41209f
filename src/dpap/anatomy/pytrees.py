"""Inputs and outputs of networks: tensors in tuples, lists, dictionaries and dataclasses."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

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
    """One forward; of several examples one each."""
    if isinstance(inputs, list):
        return [run(model, example) for example in examples_of(inputs)]
    return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


def float_tensors(value: Any) -> Iterator[Tensor]:
    """All floating-point tensors, in order."""
    return (tensor for tensor in all_tensors(value) if tensor.is_floating_point())


def all_tensors(value: Any) -> Iterator[Tensor]:
    """All tensors, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from all_tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from all_tensors(part)
    elif is_dataclass(value) and not isinstance(value, type):
        for item in fields(value):
            yield from all_tensors(getattr(value, item.name))


def map_floats(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same containers with each floating-point tensor changed."""
    return map_tensors(value, lambda tensor: change(tensor) if tensor.is_floating_point() else tensor)


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same containers with each tensor changed, in order."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(part, change) for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [map_tensors(part, change) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if is_dataclass(value) and not isinstance(value, type):
        given = [item.name for item in fields(value) if item.init]
        return replace(value, **{name: map_tensors(getattr(value, name), change) for name in given})
    return value
