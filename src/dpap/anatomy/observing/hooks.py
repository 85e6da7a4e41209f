"""Hooks that observe a network: of its layers, compiled with it, and around its forward, which are not."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


class Hook:
    """A hook that does nothing in copies of the network.

    Args:
        call: what it does; nothing in a copy.
        compiled: whether it is compiled with the network; its Python runs then when the network is compiled, and
            afterwards only what it does to tensors and to containers. Otherwise it breaks the graph.
    """

    def __init__(self, call: Callable[..., None] | None = None, compiled: bool = False) -> None:
        self._call = call if call is None or compiled else torch.compiler.disable(call)

    def __call__(self, *args: Any) -> None:
        if self._call is not None:
            self._call(*args)

    def __reduce__(self) -> tuple[type["Hook"], tuple[()]]:
        return Hook, ()

    @property
    def idle(self) -> bool:
        """Whether it came along with a copy, and does nothing."""
        return self._call is None


class _Calls(Hook):
    """Everything that is to be called before, or after, each forward of a network: one hook breaks a graph once."""

    def __init__(self) -> None:
        self.calls: list[Callable[..., None]] = []
        self.handle: RemovableHandle | None = None
        super().__init__(self._call_all)

    def _call_all(self, *args: Any) -> None:
        for call in tuple(self.calls):
            call(*args)


class Around:
    """A function that is called before or after each forward of a network, with all that hooks get.

    Args:
        model: the network.
        when: "before", with network, positional and keyword arguments; "after", also with the output.
        call: the function.
        first: whether it goes before those that are there.
    """

    def __init__(
        self,
        model: nn.Module,
        when: Literal["before", "after"],
        call: Callable[..., None],
        first: bool = False,
    ) -> None:
        self._call = call
        hooks = model._forward_pre_hooks if when == "before" else model._forward_hooks
        found = next((hook for hook in hooks.values() if isinstance(hook, _Calls)), None)
        if found is None:
            found = _Calls()
            register = model.register_forward_pre_hook if when == "before" else model.register_forward_hook
            found.handle = register(found, with_kwargs=True)
        self._calls = found
        found.calls.insert(0 if first else len(found.calls), call)

    def remove(self) -> None:
        """Call it no more."""
        if self._call in self._calls.calls:
            self._calls.calls.remove(self._call)
        if not self._calls.calls and self._calls.handle is not None:
            self._calls.handle.remove()


def in_transform() -> bool:
    """Whether a transform of torch.func (grad, vmap) runs now: what it computes cannot be kept, nor has it the axes of
    a forward.
    """
    return torch._C._functorch.peek_interpreter_stack() is not None


def in_backward() -> bool:
    """Whether a backward pass runs now, as where a checkpointed forward is run again."""
    return torch._C._current_graph_task_id() != -1
