"""What hangs on a parameter in an optimizer: moments and other state of the parameter's own shape."""

from collections.abc import Callable, Iterator

from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer


def moments(optimizer: Optimizer, parameter: Parameter) -> Iterator[tuple[str, Tensor]]:
    """State tensors of a parameter's shape, by name; scalars such as step counts are none of them."""
    for name, value in optimizer.state.get(parameter, {}).items():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            yield name, value


def change_moments(
    optimizer: Optimizer, parameter: Parameter, change: Callable[[Tensor], Tensor]
) -> Callable[[], None]:
    """Replace every moment of a parameter by `change(moment)`; returns what puts the old ones back."""
    state = optimizer.state.get(parameter, {})
    old = dict(moments(optimizer, parameter))
    for name, value in old.items():
        state[name] = change(value)

    def undo() -> None:
        state.update(old)

    return undo
