"""Whether any code of a network could call a part of it: what no method names is unused, not a branch that was not
taken.
"""

import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

_ANY_CHILD = frozenset(
    (
        "getattr",
        "children",
        "named_children",
        "modules",
        "named_modules",
        "get_submodule",
        "_modules",
        "__dict__",
    )
)
"""Names by which code may reach any child."""


class References:
    """The names that the code of a network uses, `__init__` left out.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._names: set[str] = set()
        self._by_class: dict[type, set[str]] = {}
        self._seen: set[types.CodeType] = set()
        self._within: set[types.FunctionType] = set()
        self._opaque = False
        for module in model.modules():
            self._opaque |= isinstance(module, torch.jit.ScriptModule)
            self._names |= self._of_class(type(module))
            for value in vars(module).values():
                self._names |= self._of(value)

    def could_call(self, name: str) -> bool:
        """Whether any code names a module, and every module around it."""
        if self._opaque:
            return True
        path = name.split(".")
        for place, attribute in enumerate(path):
            parent = self.model.get_submodule(".".join(path[:place]))
            any_child = type(parent).__module__.startswith("torch.nn.modules.container") or (
                _ANY_CHILD & self._of_class(type(parent))
            )
            if attribute not in self._names and not any_child:
                return False
        return True

    def _of_class(self, kind: type) -> set[str]:
        if kind not in self._by_class:
            self._by_class[kind] = found = set()
            for base in kind.__mro__:
                if base not in (nn.Module, object):
                    for name, value in vars(base).items():
                        if name != "__init__":
                            found |= self._of(value)
        return self._by_class[kind]

    def _of(self, value: Any) -> set[str]:
        """Names in a function, and in the functions that it calls by a global name."""
        found: set[str] = set()
        for function in _functions(value):
            found |= self._of_code(function.__code__, function.__globals__)
            if function in self._within:
                continue  # a function within a function may call itself
            self._within.add(function)
            for cell in function.__closure__ or ():
                try:
                    found |= self._of(cell.cell_contents)
                except ValueError:
                    continue  # a name that is not bound yet
        return found

    def _of_code(self, code: types.CodeType, names: dict[str, Any]) -> set[str]:
        if code in self._seen:
            return set()
        self._seen.add(code)
        # a name may also be built into a call, as in getattr(self, "head")
        found = {*code.co_names, *(each for each in code.co_consts if isinstance(each, str))}
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                found |= self._of_code(constant, names)
        for name in code.co_names:
            value = names.get(name)
            if isinstance(value, types.FunctionType) and not value.__module__.startswith("torch"):
                found |= self._of(value)
        return found


def _functions(value: Any) -> Iterator[types.FunctionType]:
    if isinstance(value, classmethod | staticmethod | types.MethodType):
        value = value.__func__
    if isinstance(value, property):
        for part in (value.fget, value.fset, value.fdel):
            yield from _functions(part)
    elif isinstance(value, types.FunctionType):
        yield value
        wrapped = getattr(value, "__wrapped__", None)
        if wrapped is not None and wrapped is not value:
            yield from _functions(wrapped)
