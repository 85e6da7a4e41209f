"""Count what arrives at the weights of a network while it trains: the operations that its activity causes.

A value that is not zero meets as many weights of a unit as read its place; padding meets none.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dpap.anatomy.layers import groups_of, owner_of
from dpap.anatomy.observing.hooks import Around, Hook
from dpap.anatomy.observing.levels import common_step, joint_step
from dpap.anatomy.pytrees import first_float
from dpap.anatomy.wiring import WeightLayer, Wiring

SAMPLED = 2**16
"""Values of an activity from which its step is computed, of each recorded forward."""


@dataclass
class OperationCounts:
    """What arrived at one weight layer, summed over all recorded forwards.

    Attributes:
        operations: weights of one unit that the nonzero values of each feature met.
        magnitude: the same, each counted by the size of its value.
        step: of which all values were whole multiples, as `common_step` gives it.
    """

    operations: Float64[Tensor, " feature"]
    magnitude: Float64[Tensor, " feature"]
    step: float = 0.0


def check_countable(wiring: Wiring) -> None:
    """Check that the operations of every weight layer can be counted.

    Raises:
        ValueError: where a registered layer has activity with axes behind its features, as a convolution has, for only
            torch's convolutions tell how many weights read each place; of recurrent layers, whose activity is inside.
    """
    for name, layer in wiring.layers.items():
        behind = layer.kind.activity_axis != -1 and not isinstance(layer.called, nn.modules.conv._ConvNd)
        if behind or layer.kind.name == "recurrent":
            raise ValueError(
                f"operations are counted of fully connected layers and torch's convolutions; {name} is a "
                f"{type(owner_of(layer.module)).__name__}: set target_of to weights, parameters or macs"
            )


class OperationCounter:
    """Hooks that count what arrives at every weight layer.

    Args:
        wiring: of the network.
        counting: whether the forward that runs now counts.
        model: the network; where it is compiled, counting waits for the end of each forward.
    """

    def __init__(self, wiring: Wiring, counting: Callable[[], bool], model: nn.Module) -> None:
        self._counting = counting
        self._counts: dict[str, OperationCounts] = {}
        self._present: dict[str, OperationCounts] = {}
        self._waiting: list[tuple[str, Tensor]] = []
        self._count = {name: self._counter(layer) for name, layer in wiring.layers.items()}
        self._handles: list[RemovableHandle | Around] = [
            called.register_forward_pre_hook(Hook(self._hook(name), compiled=True), with_kwargs=True)
            for name, layer in wiring.layers.items()
            if (called := layer.called) is not None
        ]
        self._handles.append(Around(model, "before", lambda *forward: self._waiting.clear()))
        # before the recorder ends, which says what counts
        self._handles.append(Around(model, "after", self._count_waiting, first=True))

    def accept(self, finite: bool, agreed: Callable[[bool], bool] = bool) -> bool:
        """End a presentation: it counts where it was finite, as what arrived must be too; returns whether it does.

        `agreed`: of whether it was in this process, whether it was in all.
        """
        present, self._present = self._present, {}
        sizes = [each.magnitude.sum().cpu() for each in present.values()]
        if not agreed(finite and not (sizes and not torch.stack(sizes).isfinite().all())):
            return False
        for name, counts in present.items():
            _add(self._counts, name, counts)
        return True

    def take(self) -> dict[str, OperationCounts]:
        """What arrived since the last call, by weight layer."""
        counts, self._counts = self._counts, {}
        return counts

    def state_dict(self) -> dict[str, dict[str, Tensor | float]]:
        """Copies of what arrived since it was last taken, as plain tensors and numbers."""
        return {
            name: {
                key: value.clone() if isinstance(value, Tensor) else value for key, value in vars(own).items()
            }
            for name, own in self._counts.items()
        }

    def load_state_dict(self, state: dict[str, dict[str, Any]]) -> None:
        """Take over what `state_dict` gave."""
        self._counts = {
            name: OperationCounts(**{**own, **{key: own[key].clone() for key in ("operations", "magnitude")}})
            for name, own in state.items()
        }

    def remove(self) -> None:
        """Remove the hooks from the network."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            if torch.compiler.is_compiling():
                if torch.is_grad_enabled():
                    self._waiting.append((name, first_float(args, options).detach()))
            elif self._counting():
                self._count[name](first_float(args, options).detach())

        return hook

    def _count_waiting(self, *forward: Any) -> None:
        if self._counting():
            for name, activity in self._waiting:
                self._count[name](activity)
        self._waiting.clear()

    def _counter(self, layer: WeightLayer) -> Callable[[Tensor], None]:
        name, axis, module = layer.name, layer.kind.activity_axis, owner_of(layer.module)
        readers: dict[tuple[int, ...], Tensor] = {}

        @torch.no_grad()
        def count(activity: Tensor) -> None:
            rows = activity.reshape(-1, *activity.shape[axis:])
            sizes = rows.abs()
            # signs of single precision add up five times as fast as booleans, and exactly up to 2^24 rows
            size, met = (part.sum(0, dtype=torch.float32).double() for part in (sizes, sizes.sign()))
            if rows.ndim > 2:
                place = tuple(rows.shape[2:])
                if place not in readers:
                    readers[place] = readers_of(module, rows.shape[1:])
                met, size = ((part * readers[place]).flatten(1).sum(1) for part in (met, size))
            step = common_step(rows.flatten()[:SAMPLED])
            _add(self._present, name, OperationCounts(met, size, step))

        return count


def _add(counts: dict[str, OperationCounts], name: str, more: OperationCounts) -> None:
    known = counts.get(name)
    if known is None:
        counts[name] = more
    else:
        known.operations += more.operations
        known.magnitude += more.magnitude
        known.step = joint_step(known.step, more.step)


def readers_of(convolution: nn.Module, shape: torch.Size) -> Float64[Tensor, "*space"]:
    """How many weights of one unit read each place of a convolution's input [features, *space]."""
    weight: Tensor = convolution.get_parameter("weight")
    transposed, groups = bool(convolution.transposed), groups_of(convolution)
    kernel = weight.shape[2:]
    ones = (shape[0], 1, *kernel) if transposed else (groups, shape[0] // groups, *kernel)
    one_unit_each = torch.ones(ones, dtype=torch.float64, device=weight.device)
    with (
        torch.enable_grad(),
        torch.autocast(weight.device.type, enabled=False),
        # within a checkpoint nothing of this may count as saved for its backward pass
        torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor),
    ):
        maps = torch.zeros(1, *shape, dtype=torch.float64, device=weight.device, requires_grad=True)
        if transposed:
            transpose = getattr(nn.functional, f"conv_transpose{len(kernel)}d")
            made = transpose(
                maps, one_unit_each, None, convolution.stride, convolution.padding,
                convolution.output_padding, groups, convolution.dilation,
            )  # fmt: skip
        else:
            made = convolution._conv_forward(maps, one_unit_each, None)  # type: ignore[operator]
        (read,) = torch.autograd.grad(made.sum(), maps)
    counts: Tensor = read[0, 0].round()
    return counts
