"""Which networks have a pruner now: each has one at most."""

from collections.abc import Callable
from typing import Any
from weakref import WeakMethod

from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from dpap.anatomy.observing.hooks import Hook

_PRUNED: Any = WeakIdKeyDictionary()
"""Module, by its identity -> what stands for the pruner of the network that it is part of."""


class _Pruner:
    """Stands for a pruner, which it does not keep alive."""

    def __init__(self, settle: Callable[[], None]) -> None:
        self.settle = WeakMethod(settle)


def settle(model: nn.Module) -> None:
    """Silence what is dead in a network, as its next forward would, before it is stored or exported."""
    for pruner in {id(one): one for module in model.modules() if (one := _PRUNED.get(module))}.values():
        call = pruner.settle()
        if call is not None:
            call()


def mark(model: nn.Module, settle: Callable[[], None]) -> object:
    """Note that a network has a pruner; returns what `unmark` takes.

    Args:
        model: the network.
        settle: a method of the pruner that silences what is dead in it.
    """
    pruner = _Pruner(settle)
    # what holds no tensors may be shared by networks, as default surrogate functions are
    holding = (
        module
        for module in model.modules()
        if module is model or any(True for part in (module._parameters, module._buffers) for _ in part)
    )
    _PRUNED.update(dict.fromkeys(holding, pruner))
    return pruner


def unmark(pruner: object) -> None:
    """Note that a network has this pruner no longer."""
    for module in [module for module, owner in _PRUNED.items() if owner is pruner]:
        del _PRUNED[module]


def check_unpruned(model: nn.Module, instead: str) -> None:
    """Check that no part of a network has a pruner.

    Raises:
        ValueError: where one has; it tells what to do instead.
    """
    for name, module in model.named_modules():
        if module in _PRUNED:
            part = f" (its part {name!r})" if name else ""
            raise ValueError(f"this {type(model).__name__} has a Pruner already{part}: {instead}")


def remove_idle_hooks(model: nn.Module) -> None:
    """Take out the hooks that came along when the network was copied, and do nothing."""
    for module in model.modules():
        for kind in (
            "_forward_pre_hooks",
            "_forward_hooks",
            "_load_state_dict_pre_hooks",
            "_load_state_dict_post_hooks",
        ):
            hooks = getattr(module, kind)
            for key, hook in list(hooks.items()):
                own = getattr(hook, "hook", hook)  # torch wraps some
                if isinstance(own, Hook) and own.idle:
                    del hooks[key]
                    getattr(module, f"{kind}_with_kwargs", {}).pop(key, None)
