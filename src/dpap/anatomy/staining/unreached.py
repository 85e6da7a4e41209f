"""Modules that never ran on the examples, and whose units they might read or be added to.

What a branch that was not taken would read is not known. It can only be what is at hand in the forward that would
call it: the arguments of that forward, and what the modules that it calls return. Every layer whose dye is found
there, and whose units fit the sizes of the module in question, must keep its units.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.overrides import TorchFunctionMode

from dpap.anatomy.layers import layer_kind, size_of
from dpap.anatomy.pytrees import Inputs, float_tensors
from dpap.anatomy.staining.references import References


class _Arguments(TorchFunctionMode):
    """Notes every tensor that a torch operation is given while a forward runs.

    Args:
        stack: names of the modules whose forwards run now.
    """

    def __init__(self, stack: list[str]) -> None:
        super().__init__()
        self.seen: set[int] = set()
        self._stack = stack

    def __torch_function__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._stack:  # otherwise it is restored or compared, not used
            self._note(args)
            self._note(kwargs or {})
        return operation(*args, **(kwargs or {}))

    def _note(self, value: Any) -> None:
        if isinstance(value, Tensor):
            self.seen.add(id(value))
        elif isinstance(value, list | tuple):
            for part in value:
                self._note(part)
        elif isinstance(value, dict):
            for part in value.values():
                self._note(part)


class Calls:
    """Which modules of a network run, and what is at hand in their forwards.

    Args:
        model: the network.

    Attributes:
        ran: modules whose forward ran.
        unreached: modules with parameters or buffers of their own that neither ran nor lent another one their
            parameters, though code of the network names them.
        unused: those that no code names.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.ran: set[str] = set()
        self.unreached: dict[str, nn.Module] = {}
        self.unused: dict[str, nn.Module] = {}
        self._stack: list[str] = []

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Note what runs meanwhile."""

        def enter(name: str, values: Any) -> None:
            self.ran.add(name)

        with self._watching(enter, lambda scope, values: None), _Arguments(self._stack) as arguments:
            yield
        missing = {
            name: module
            for name, module in self.model.named_modules()
            if name not in self.ran
            if (own := [*module.parameters(recurse=False), *module.buffers(recurse=False)])
            if not any(id(tensor) in arguments.seen for tensor in own)
        }
        references = References(self.model) if missing else None
        for name, module in missing.items():
            called = references is not None and references.could_call(name)
            (self.unreached if called else self.unused)[name] = module

    def scope(self, name: str) -> str:
        """The nearest module around another one whose forward ran: it is where that one would have been called."""
        while name not in self.ran and name:
            name = name.rpartition(".")[0]
        return name

    @contextmanager
    def at_hand(self) -> Iterator[set[str]]:
        """The scopes of unreached modules in which dye is at hand meanwhile."""
        scopes = {self.scope(name) for name in self.unreached}
        found: set[str] = set()

        def look(scope: str, values: Any) -> None:
            if scope in scopes - found and any(
                bool(torch.isnan(each).any()) for each in float_tensors(values)
            ):
                found.add(scope)

        if not scopes:
            yield found
            return
        with self._watching(look, look):
            yield found

    def held(self, at_hand: dict[str, set[str]], units: dict[str, int], inputs: Inputs) -> dict[str, str]:
        """Source layers that must keep their units -> the unreached module that might read them.

        A module fits a layer where one of its sizes is a multiple of the layer's units (flattened maps), a divisor of
        them (chunks), or their sum with the units of other layers at hand or a size of the input (concatenation).

        Args:
            at_hand: source layer -> scopes in which its dye is at hand.
            units: source layer -> number of its units.
            inputs: example inputs.
        """
        given = {size for tensor in float_tensors(inputs) for size in tensor.shape[1:]} | {0}
        held: dict[str, str] = {}
        for name, module in self.unreached.items():
            scope = self.scope(name)
            widths = {source: units[source] for source, scopes in at_hand.items() if scope in scopes}
            for source, width in widths.items():
                if source not in held and source != name:
                    others = _sums([other for each, other in widths.items() if each != source])
                    sums = {one + other for one in others for other in given}
                    if any(_fits(size, width, sums) for size in _sizes(module)):
                        held[source] = name
        return held

    @contextmanager
    def _watching(
        self, entering: Callable[[str, Any], None], returned: Callable[[str, Any], None]
    ) -> Iterator[None]:
        """Call `entering` with the name and arguments of each module that is called, and `returned` with the name of
        the module that called one and what that returned.
        """
        names = {module: name for name, module in self.model.named_modules()}

        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            entering(names[module], (args, kwargs))
            self._stack.append(names[module])

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            if self._stack:
                self._stack.pop()
            if self._stack:
                returned(self._stack[-1], output)

        handles: list[Any] = []
        try:
            for module in names:
                handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
                handles.append(module.register_forward_hook(leave, always_call=True))
            self._stack.clear()
            yield
        finally:
            for handle in handles:
                handle.remove()


def _sizes(module: nn.Module) -> set[int]:
    """How many units and features a module has; of one that is no weight layer, any size of its tensors."""
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    if any(isinstance(tensor, UninitializedParameter) for tensor in own):
        return set()  # it takes its size from what it reads first
    if layer_kind(module) is not None:
        return set(size_of(module)) - {1}
    return {size for tensor in own for size in tensor.shape} - {1}


def _fits(size: int, width: int, sums: set[int]) -> bool:
    return size % width == 0 or width % size == 0 or size - width in sums


def _sums(widths: list[int]) -> set[int]:
    """Every sum of some of the widths."""
    sums = {0}
    for width in widths:
        sums |= {each + width for each in sums}
    return sums
