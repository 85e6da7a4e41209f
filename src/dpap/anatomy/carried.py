"""State that a network is given and returns, such as membranes in a loop of the user's: it follows the width of the
network.

An argument is such a state where a returned tensor that need not keep its width (`outputs`) has its shape, and where
it arrives at nothing that the units of the returned one do not reach.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from dpap.anatomy.pytrees import Inputs, examples_of, float_tensors, map_floats

Key = TypeVar("Key")


@dataclass(frozen=True)
class Carried:
    """One state.

    Attributes:
        argument: its place among the floating-point tensors of the arguments.
        returned: and among those that forward returns.
    """

    argument: int
    returned: int


def match(
    arguments: Sequence[Tensor],
    returned: Mapping[int, tuple[int, ...]],
    reached_from: Callable[[int], Set[Key]],
    reached_with: Callable[[int], Set[Key]],
) -> list[Carried]:
    """Which arguments are states, from the last to the first, as networks take and return them in one order.

    Args:
        arguments: floating-point tensors of the arguments.
        returned: place among the floating-point tensors that forward returns -> shape, of those that need not keep
            their width.
        reached_from: where an argument arrives.
        reached_with: where the units arrive that a returned tensor holds; nothing where it holds none.
    """
    found: list[Carried] = []
    left = len(arguments)
    for place in sorted(returned, reverse=True):
        others = reached_with(place)
        if not others:
            continue
        for number in reversed(range(left)):
            if tuple(arguments[number].shape) == returned[place] and reached_from(number) <= others:
                found.append(Carried(number, place))
                left = number
                break
    return found[::-1]


def change_states(inputs: Inputs, changes: Mapping[int, Callable[[Tensor], Tensor]]) -> Inputs:
    """The same inputs with some floating-point tensors changed, by their place in each example."""

    def changed(example: Any) -> Any:
        places = iter(range(sum(1 for _ in float_tensors(example))))

        def change(tensor: Tensor) -> Tensor:
            place = next(places)
            return changes[place](tensor) if place in changes else tensor

        return map_floats(example, change)

    if not changes:
        return inputs
    examples = [changed(example) for example in examples_of(inputs)]
    return examples if isinstance(inputs, list) else examples[0]


def handed_back(inputs: Inputs, returned: Any, states: Sequence[Carried]) -> Inputs:
    """The inputs of the next call: with the states that the last one returned."""
    tensors = list(float_tensors(returned))
    return _with(inputs, {state.argument: tensors[state.returned] for state in states})


def with_states_of(inputs: Inputs, other: Inputs, states: Sequence[Carried]) -> Inputs:
    """Inputs with the states of others."""
    tensors = list(float_tensors(other))
    return _with(inputs, {state.argument: tensors[state.argument] for state in states})


def _with(inputs: Inputs, tensors: Mapping[int, Tensor]) -> Inputs:
    return change_states(
        inputs,
        {place: lambda _, tensor=tensor: tensor for place, tensor in tensors.items()},  # type: ignore[misc]
    )
