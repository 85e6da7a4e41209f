"""Which layer reads what in one forward: calls of layers, and what joins and reshapes their values in between."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dpap.anatomy.pytrees import all_tensors
from dpap.export.report import ExportError

Shape = tuple[int, ...]


@dataclass
class Value:
    """What a tensor of the network holds.

    Attributes:
        sources: nodes, the outputs of which it is the sum of.
        unit: its shape for one sample at one timestep.
        tensor: itself.
        scale: what its nodes' outputs are still to be multiplied by.
        gone: why nothing may read it any more.
        read_out: the value over time of which it is the mean or sum.
    """

    sources: tuple[str, ...]
    unit: Shape
    tensor: Tensor
    scale: float = 1.0
    gone: str = ""
    read_out: "Value | None" = None

    @property
    def lead(self) -> int:
        """How many axes count time and samples."""
        return self.tensor.ndim - len(self.unit)


class Layers(Protocol):
    """Turns calls of layers into nodes."""

    def takes(self, module: nn.Module) -> bool:
        """Whether calls of a module are one node, or none."""

    def call(self, name: str, module: nn.Module, value: Value, output: Tensor) -> Value:
        """The value of a module's output."""

    def flatten(self, value: Value, output: Tensor) -> Value:
        """The value with one axis for all features."""


RESHAPES = frozenset(
    (
        *("flatten", "unflatten", "view", "view_as", "reshape", "reshape_as", "squeeze", "unsqueeze"),
        *(
            "expand",
            "expand_as",
            "repeat",
            "contiguous",
            "clone",
            "detach",
            "to",
            "type_as",
            "float",
            "double",
        ),
    )
)
SUMS = frozenset(("add", "add_", "__add__", "__radd__", "__iadd__", "iadd"))
READ_OUTS = frozenset(("mean", "sum"))


@dataclass
class Watch:
    """Follows values through a forward.

    Args:
        layers: gets the calls.
    """

    layers: Layers
    values: dict[int, Value] = field(default_factory=dict)
    inside: int = 0
    """Modules, of those that are nodes, that are being called."""
    names: list[str] = field(default_factory=list)
    """Paths of all modules that are being called."""

    def put(self, value: Value) -> None:
        """Remember a tensor's value."""
        self.values[id(value.tensor)] = value

    def of(self, tensor: Tensor, reader: str) -> Value:
        """The value of a tensor.

        Raises:
            ExportError: where it is not known, or nothing may read it.
        """
        value = self.values.get(id(tensor))
        if value is None:
            raise ExportError(f"{reader} reads a tensor that no layer and no input gave")
        if value.gone or value.read_out is not None:
            raise ExportError(
                f"{reader} reads {value.gone or 'a mean or sum over time'}: NIR has no node for that"
            )
        return value

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Meanwhile forwards are followed."""
        handles = []
        for name, module in model.named_modules():
            if module is not model or self.layers.takes(module):
                handles.append(module.register_forward_pre_hook(partial(self._enter, name)))
                handles.append(module.register_forward_hook(partial(self._leave, name)))
        try:
            with _Mode(self):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str, module: nn.Module, args: Any) -> None:
        self.names.append(f"{name} ({type(module).__name__})")
        self.inside += self.layers.takes(module)

    def _leave(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        reader = self.names.pop()
        if not self.layers.takes(module):
            return
        self.inside -= 1
        if self.inside == 0 and output is not args[0]:
            self.put(self.layers.call(name, module, self.of(args[0], reader), output))

    def operation(self, function: Callable[..., Any], args: Any, kwargs: Any, returned: Any) -> None:
        """Follow an operation between layers."""
        read = [tensor for tensor in all_tensors((args, kwargs)) if id(tensor) in self.values]
        outputs = list(all_tensors(returned))
        if not read or not outputs or self.inside:
            return
        name = getattr(function, "__name__", str(function))
        where = f"torch's {name}" + (f" in {self.names[-1]}" if self.names else "")
        if len(outputs) == 1 and name in RESHAPES:
            self.put(self._reshaped(self.of(read[0], where), outputs[0], where))
        elif len(outputs) == 1 and name in SUMS and len(read) == 2:
            self.put(self._sum([self.of(tensor, where) for tensor in read], outputs[0], where))
        elif len(outputs) == 1 and name in READ_OUTS and len(read) == 1:
            value = self.of(read[0], where)
            if outputs[0].shape[-len(value.unit) :] != value.unit or outputs[0].ndim >= read[0].ndim:
                raise ExportError(f"{where} is over more than time: NIR has no node for it")
            self.put(Value(value.sources, value.unit, outputs[0], read_out=value))
        else:
            raise ExportError(
                f"NIR has no node for {where}: it takes layers and neurons one behind the other, and sums of them"
            )

    def _reshaped(self, value: Value, output: Tensor, where: str) -> Value:
        if output is value.tensor:
            return value
        shape, unit = tuple(output.shape), value.unit
        if len(shape) > len(unit) and shape[-len(unit) :] == unit:
            return Value(value.sources, unit, output, value.scale)
        if len(unit) > 1 and shape[-1] == math.prod(unit) and output.numel() == value.tensor.numel():
            return self.layers.flatten(value, output)
        raise ExportError(f"NIR has no node for {where}, from {tuple(value.tensor.shape)} to {shape}")

    @staticmethod
    def _sum(values: list[Value], output: Tensor, where: str) -> Value:
        one, other = values
        sources = (*one.sources, *other.sources)
        if one.unit != other.unit or len(set(sources)) < len(sources) or one.scale != 1 or other.scale != 1:
            raise ExportError(
                f"NIR has no node for {where}: it sums different layers of equal shape and nothing else"
            )
        return Value(sources, one.unit, output)


class _Mode(TorchFunctionMode):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            self.watch.operation(func, args, kwargs or {}, returned)
        return returned
