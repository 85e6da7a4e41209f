"""Whether the dead are removed from a network that goes on training: when it saves time, and what forbids it."""

from torch import Tensor

from dpap.anatomy import Wiring
from dpap.anatomy.pytrees import float_tensors
from dpap.surgery import CompactionError
from dpap.surgery.compact import what_remains
from dpap.surgery.known_optimizers import KnownOptimizers
from dpap.surgery.masks import Masks

STEP = 3
"""Multiplications of a training step, in forwards: one forwards, twice as many backwards."""
REMOVAL = 4
"""Cost of a removal, in forwards: it is checked by two of the example inputs in double precision."""


def saves_time(wiring: Wiring, masks: Masks, round_to: int, forwards: int) -> bool:
    """Whether another epoch of so many training forwards would save more multiplications than the removal takes."""
    kept = what_remains(wiring, masks.removable(wiring, round_to))
    now, left = wiring.macs(), wiring.macs(kept.units, kept.features)
    return STEP * forwards * (now - left) > REMOVAL * now


PARTS = ("optimizer", "state", "param_groups", "defaults")
"""Attributes of an optimizer, or of a wrapper, whose tensors are found otherwise."""


def check_own_tensors(optimizers: KnownOptimizers) -> None:
    """Check that no optimizer, or wrapper of one, keeps tensors of its own, which would not shrink with the network.

    Raises:
        CompactionError: where one does, such as Lookahead its slow weights.
    """
    known = {
        id(tensor)
        for optimizer in optimizers
        for tensor in float_tensors(
            [list(optimizer.state), list(optimizer.state.values()), optimizer.param_groups]
        )
    }
    # an optimizer may keep constants of any shape, but what is shaped like its parameters belongs to them
    shapes = {
        one.shape for optimizer in optimizers for group in optimizer.param_groups for one in group["params"]
    }
    wrappers = {id(one) for one in optimizers.wrappers}
    for holder in (*optimizers.wrappers, *(one for one in optimizers if id(one) not in wrappers)):
        for name, value in getattr(holder, "__dict__", {}).items():
            if name in PARTS or not isinstance(value, dict | list | tuple | Tensor):
                continue
            own = [one for one in float_tensors(value) if one.ndim and id(one) not in known]
            if any(id(holder) in wrappers or one.shape in shapes for one in own):
                raise CompactionError(
                    f"{type(holder).__name__} keeps tensors of its own, {name!r}, which do not follow a removal. "
                    f"Nothing was removed: empty it (.{name}.clear()) once training has ended, or train without it"
                )
