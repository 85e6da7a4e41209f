"""One forward of a network: its tensors in and out by name, its batch axis, and the spikes of its neurons."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dpap.anatomy import neuron_kind
from dpap.anatomy.hidden_state import reset_state
from dpap.anatomy.pytrees import all_tensors, map_tensors
from dpap.export.report import ExportError
from dpap.surgery.further import further_inputs

Example = Tensor | tuple[Any, ...] | dict[str, Any]
ROUNDING = 1e-3
"""So far outputs of a sample may be apart, of the largest, in batches of other sizes."""


@dataclass(frozen=True)
class Call:
    """What a network's forward takes, as a list of tensors.

    Attributes:
        inputs: positional arguments, or keyword arguments, with the tensors of the example.
        names: of the tensors in them, in order.
    """

    inputs: tuple[Any, ...] | dict[str, Any]
    names: list[str]

    @classmethod
    def of(cls, model: nn.Module, example: Example) -> "Call":
        """From an example of what the forward takes.

        Raises:
            TypeError: where it is none, or no tensor is in it.
        """
        inputs = (example,) if isinstance(example, Tensor) else example
        if not isinstance(inputs, tuple | dict) or next(all_tensors(inputs), None) is None:
            raise TypeError(
                "example is what the network's forward takes: a tensor, a tuple of positional arguments or a "
                f"dictionary of keyword arguments, with tensors in it; got {type(example).__name__}"
            )
        if isinstance(inputs, dict):
            named: list[tuple[str, Any]] = list(inputs.items())
        else:
            own = [name for name, each in inspect.signature(model.forward).parameters.items()
                   if each.kind is not inspect.Parameter.VAR_KEYWORD]  # fmt: skip
            spare = (f"input{place}" for place in range(len(inputs)))
            named = [(own[place] if place < len(own) else next(spare), x) for place, x in enumerate(inputs)]
        names: list[str] = []
        for name, value in named:
            count = sum(1 for _ in all_tensors(value))
            names += [name] if count == 1 else [f"{name}.{place}" for place in range(count)]
        return cls(inputs, names)

    @property
    def tensors(self) -> list[Tensor]:
        """The example's."""
        return list(all_tensors(self.inputs))

    def of_samples(self, axis: int, count: int) -> "Call":
        """With so many samples: the first ones, or all of them again and again."""
        return Call(map_tensors(self.inputs, lambda tensor: samples_of(tensor, axis, count)), self.names)

    def doubled(self, axis: int) -> "Call":
        """With each sample twice."""
        return self.of_samples(axis, 2 * self.tensors[0].shape[axis])

    def run(self, model: nn.Module, tensors: list[Tensor]) -> Any:
        """What the forward returns, given other tensors in the places of the example's."""
        left = iter(tensors)
        given = map_tensors(self.inputs, lambda _: next(left))
        return model(**given) if isinstance(given, dict) else model(*given)


def samples_of(tensor: Tensor, axis: int, count: int) -> Tensor:
    """So many samples along an axis: the first ones, or all of them again and again."""
    return tensor.index_select(axis, torch.arange(count, device=tensor.device) % tensor.shape[axis])


@dataclass(frozen=True)
class Spikes:
    """What neurons emitted in a forward, call by call.

    Attributes:
        names: of the modules, "name", or "name.1" and so on from a module's second call on.
        modules: those.
        tensors: what they emitted.
    """

    names: list[str]
    modules: list[nn.Module]
    tensors: list[Tensor]


@contextmanager
def recorded_spikes(model: nn.Module) -> Iterator[Spikes]:
    """Fills what it yields while forwards run."""
    spikes = Spikes([], [], [])
    calls: dict[str, int] = {}

    def record(name: str, module: nn.Module, args: Any, output: Any) -> None:
        number = calls[name] = calls.get(name, -1) + 1
        spikes.names.append(f"{name}.{number}" if number else name)
        spikes.modules.append(module)
        spikes.tensors.append(next(all_tensors(output)))

    handles = [
        module.register_forward_hook(partial(record, name))
        for name, module in model.named_modules()
        if (kind := neuron_kind(module)) is not None and kind.spikes
    ]
    try:
        yield spikes
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Outcome:
    """Outputs of a forward, by name, and its spikes."""

    outputs: dict[str, Tensor]
    spikes: Spikes


def outcome(model: nn.Module, forward: Callable[[], Any], *, reset: bool = True) -> Outcome:
    """Run a forward, from the state at the start of a presentation."""
    if reset:
        reset_state(model)
    with recorded_spikes(model) as spikes:
        returned = forward()
    return Outcome(named(returned), spikes)


def named(returned: Any) -> dict[str, Tensor]:
    """Tensors of what a forward returned, by name.

    Raises:
        ExportError: where there are none.
    """
    if isinstance(returned, Mapping):
        found = {str(key): list(all_tensors(value)) for key, value in returned.items()}
    else:
        found = {"output": list(all_tensors(returned))}
    names: dict[str, Tensor] = {}
    for name, tensors in found.items():
        for place, tensor in enumerate(tensors):
            names[name if place == 0 else f"{name}.{place}"] = tensor
    if not names:
        raise ExportError(f"the network returned no tensor but {type(returned).__name__}: nothing to export")
    return names


def batch_axis_of(model: nn.Module, call: Call) -> int:
    """The axis of the inputs that counts samples: twice the samples must give twice the outputs, at equal timesteps.

    Where that holds of both axes, as of sequences that come back as sequences, it is the one along which what stands
    before and behind the samples leaves what they give as it is.

    Raises:
        ExportError: where there is none.
    """
    tensors = call.tensors
    once = outcome(model, lambda: call.run(model, tensors))
    tried, found = [], []
    for axis in (0, 1):
        if any(tensor.ndim <= axis for tensor in tensors):
            continue
        doubled = call.doubled(axis).tensors
        try:
            twice = outcome(model, lambda doubled=doubled: call.run(model, doubled))  # type: ignore[misc]
        except Exception as error:
            tried.append(
                f"axis {axis}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            )
            continue
        if _doubled(once, twice):
            found.append(axis)
        else:
            tried.append(f"axis {axis}: twice as much of it does not give twice as many outputs")
    if len(found) == 1:
        return found[0]
    if found:
        apart = {axis: _dependence(model, call, axis, once) for axis in found}
        return next((axis for axis in found if apart[axis] <= ROUNDING), min(found, key=apart.__getitem__))
    raise ExportError(
        "expected a network that takes any number of samples, along the first axis of all its inputs or, behind "
        f"time, the second; found neither ({'; '.join(tried) or 'an input has no axes'})"
    )


def _dependence(model: nn.Module, call: Call, axis: int, once: Outcome) -> float:
    """How far outputs change, of the largest, where others stand before and behind the samples along an axis."""
    others = all_tensors(further_inputs(call.inputs))
    between = [torch.cat([other, own, other], axis) for own, other in zip(call.tensors, others, strict=True)]
    try:
        among = outcome(model, lambda: call.run(model, between)).outputs
    except Exception:  # whatever a forward says of a length that it does not take
        return math.inf
    apart = 0.0
    for name, alone in once.outputs.items():
        found = among[name]
        grown = [place for place, size in enumerate(alone.shape) if found.shape[place] == 3 * size > size]
        if len(grown) != 1:
            return math.inf
        same = found.narrow(grown[0], alone.shape[grown[0]], alone.shape[grown[0]]).double()
        largest = max(1.0, float(alone.double().abs().max()))
        apart = max(apart, float((same - alone.double()).abs().max()) / largest)
    return apart


def _doubled(once: Outcome, twice: Outcome) -> bool:
    """Whether neurons emitted as often, over as much time, and outputs have one axis doubled."""
    if twice.spikes.names != once.spikes.names or twice.outputs.keys() != once.outputs.keys():
        return False
    for module, small, large in zip(
        once.spikes.modules, once.spikes.tensors, twice.spikes.tensors, strict=True
    ):
        kind = neuron_kind(module)
        axis = None if kind is None else kind.time_axis_of(module)
        if axis is not None and small.shape[axis] != large.shape[axis]:
            return False
    return all(
        small.ndim == large.ndim
        and sum(one != two for one, two in zip(small.shape, large.shape, strict=True)) == 1
        and large.numel() == 2 * small.numel() > 0
        for small, large in zip(once.outputs.values(), twice.outputs.values(), strict=True)
    )
