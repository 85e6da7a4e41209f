"""Where optimizer state is cut along with its parameter: moments, factored moments, histories of quasi-Newton methods.

State is recognised by its layout, not by the optimizer's class: a tensor with the parameter's axes, each whole or of
size 1 (as in the factored moments of Adafactor), is changed along with the parameter; single numbers stay. State of
any other layout is refused: dropping it would change the training that follows, unnoticed.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import Parameter
from torch.optim import LBFGS, Optimizer

from dpap.surgery.equivalence import CompactionError


def moments(optimizer: Optimizer, parameter: Parameter) -> Iterator[tuple[str, Tensor]]:
    """State tensors that are laid out like a parameter, by name; axes of size 1 hold means over the parameter's."""
    for name, value in optimizer.state.get(parameter, {}).items():
        if _is_moment(value, parameter):
            yield name, value


@torch.no_grad()
def silence_moments(optimizer: Optimizer, parameter: Parameter, dead: Bool[Tensor, "..."]) -> None:
    """Clear the moments of a parameter's dead entries; a mean is dead where all its entries are."""
    for _, moment in moments(optimizer, parameter):
        averaged = dead
        for axis, size in enumerate(moment.shape):
            if size != dead.shape[axis]:
                averaged = averaged.all(axis, keepdim=True)
        moment.masked_fill_(averaged.to(moment.device), 0)


def reset_curvature(optimizer: Optimizer) -> None:
    """Let a quasi-Newton method start anew: its curvature is that of the network before something died."""
    if isinstance(optimizer, LBFGS):
        for state in optimizer.state.values():
            state.clear()


def check_state(optimizer: Optimizer) -> None:
    """Check that an optimizer keeps nothing but what can be changed along with its parameters.

    All its parameters are checked: a matrix over the units of a square weight has the shape of a moment, others not.

    Raises:
        CompactionError: where it keeps anything else.
    """
    if isinstance(optimizer, LBFGS):
        return
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if not _is_number(value) and not _is_moment(value, parameter):
                got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise CompactionError(
                    f"{type(optimizer).__name__} keeps {name!r} ({got}) of a parameter {tuple(parameter.shape)}; "
                    "expected numbers, and tensors laid out like the parameter, which can be sliced along with it. "
                    "Nothing was removed: call optimizer.state.clear() before, so that the optimizer starts anew, or "
                    "prune without removal"
                )


@contextmanager
def loaded_before(optimizers: Sequence[Optimizer]) -> Iterator[None]:
    """Set aside, while parameters are sliced, state that was loaded for the shapes that they come to have.

    Raises:
        CompactionError: where it does not fit these either.
    """
    aside: list[tuple[Optimizer, Tensor, Any]] = []
    for optimizer in optimizers:
        if isinstance(optimizer, LBFGS):
            continue  # what is not of its present length is left as it is
        for parameter, state in list(optimizer.state.items()):
            if not all(_is_number(value) or _is_moment(value, parameter) for value in state.values()):
                aside.append((optimizer, parameter, optimizer.state.pop(parameter)))
    try:
        yield
    finally:
        for optimizer, parameter, state in aside:
            optimizer.state[parameter] = state
    for optimizer in optimizers:
        check_state(optimizer)


def change_state(
    optimizer: Optimizer, parameter: Parameter, change: Callable[[Tensor], Tensor]
) -> Callable[[], None]:
    """Change everything that an optimizer keeps of a parameter, before the parameter itself is changed.

    Args:
        optimizer: any; of LBFGS the history, one vector over all its parameters, changes at this one's place.
        parameter: of the optimizer or not.
        change: of a tensor laid out like the parameter; leaves axes of another size alone.

    Returns:
        A function that puts the old state back.
    """
    if isinstance(optimizer, LBFGS):
        return _change_history(optimizer, parameter, change)
    state = optimizer.state.get(parameter, {})
    old = dict(state)
    state.update(
        {name: _changed(moment, parameter, change) for name, moment in moments(optimizer, parameter)}
    )
    return lambda: state.update(old)


def _changed(moment: Tensor, parameter: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """A moment, changed; where it is a mean over an axis, in which the dead were zeros, of what remains there."""
    changed = change(moment)
    if moment.shape == parameter.shape:
        return changed
    left = change(moment.new_zeros(()).expand(parameter.shape)).shape
    share = math.prod(
        now / whole
        for now, whole, own in zip(left, parameter.shape, moment.shape, strict=True)
        if own == 1 < whole
    )
    return changed / share if 0 < share < 1 else changed


def _is_moment(value: Any, parameter: Tensor) -> bool:
    if not isinstance(value, Tensor) or value.ndim != parameter.ndim or value.ndim == 0:
        return False
    return all(size in (1, whole) for size, whole in zip(value.shape, parameter.shape, strict=True))


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() <= 1
    if isinstance(value, Mapping):
        return all(_is_number(part) for part in value.values())
    if isinstance(value, list | tuple):
        return all(_is_number(part) for part in value)
    return value is None or isinstance(value, int | float | complex | str)


def _change_history(
    optimizer: LBFGS, parameter: Parameter, change: Callable[[Tensor], Tensor]
) -> Callable[[], None]:
    start, total = None, 0
    parameters = optimizer.param_groups[0]["params"]
    for one in parameters:
        start = total if one is parameter else start
        total += one.numel()
    state = optimizer.state.get(parameters[0], {})
    if start is None:
        return lambda: None
    begin, end = start, start + parameter.numel()

    def changed(value: Any) -> Any:
        if isinstance(value, list):
            return [changed(part) for part in value]
        if not isinstance(value, Tensor) or value.shape != (total,):
            return value
        own = change(value[begin:end].view(parameter.shape))
        return torch.cat([value[:begin], own.flatten(), value[end:]])

    old, known = dict(state), optimizer._numel_cache
    state.update({name: changed(value) for name, value in old.items()})
    optimizer._numel_cache = None

    def undo() -> None:
        state.update(old)
        optimizer._numel_cache = known

    return undo
