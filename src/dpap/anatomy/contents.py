"""What attributes hold: constants, tensors and containers; copies of them, and whether two are alike."""

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable
from copy import copy
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_COPIED = frozenset((list, dict, OrderedDict, defaultdict, Counter, deque, set))
"""Containers of which a network works on copies."""
_CONTAINERS = (list, dict, deque, set)
MUTABLE = (Tensor, np.ndarray, tuple, *_CONTAINERS)
_CONSTANTS = (int, float, complex, str, bytes, type(None), range, frozenset, type)
DEEPEST = 4
"""Containers within containers that are looked into; a container may hold itself."""


def is_constant(value: Any) -> bool:
    """Whether nothing can change a value in place."""
    return isinstance(value, _CONSTANTS) or (
        type(value) is tuple and all(is_constant(part) for part in value)
    )


def holds_constants(value: Any) -> bool:
    """Whether a value is a container of constants, and of nothing else."""
    if type(value) not in _COPIED:
        return False
    return all(is_constant(part) for part in (value.values() if isinstance(value, dict) else value))


def refill(container: Any, before: Any) -> None:
    """Let a container hold the very constants, in the order, that it held before."""
    if isinstance(container, dict):
        alike = list(container) == list(before) and all(map(is_, container.values(), before.values()))
    else:
        alike = len(container) == len(before) and all(map(is_, container, before))
    if alike:
        return
    container.clear()
    if isinstance(container, list | deque):
        container.extend(before)
    else:
        container.update(before)


def copied(value: Any, copies: dict[int, Any]) -> Any:
    """Detached copies of tensors and arrays, in new containers; everything else stays the same object."""
    if isinstance(value, nn.Parameter) or not isinstance(value, MUTABLE):
        return value
    if id(value) in copies:
        return copies[id(value)]
    new: Any = value
    if isinstance(value, Tensor):
        new = value.detach().clone()
    elif isinstance(value, np.ndarray):
        new = value.copy()
    elif isinstance(value, tuple):
        parts = [copied(part, copies) for part in value]
        if hasattr(value, "_fields"):
            new = type(value)(*parts)
        elif type(value) is tuple:
            new = tuple(parts)
    elif type(value) in _COPIED:
        new = copies[id(value)] = copy(value)
        if not isinstance(value, set):
            for place, part in list(value.items() if isinstance(value, dict) else enumerate(value)):
                new[place] = copied(part, copies)
    copies[id(value)] = new
    return new


def numbers_in(value: Any, depth: int = DEEPEST) -> int:
    """How many numbers the tensors hold that a value is or contains; parameters are not counted."""
    if isinstance(value, Tensor):
        return 0 if isinstance(value, nn.Parameter) else value.numel()
    return sum(numbers_in(part, depth - 1) for part in _parts(value)) if depth else 0


def alike(one: Any, other: Any, depth: int = DEEPEST) -> bool:
    """Whether two values are the same, or equal tensors, or containers of such."""
    if one is other:
        return True
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one, other)
    parts, others = list(_parts(one)), list(_parts(other))
    if not depth or type(one) is not type(other) or not 0 < len(parts) == len(others):
        return False
    return all(alike(part, beside, depth - 1) for part, beside in zip(parts, others, strict=True))


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, tuple | list | deque) else ()
