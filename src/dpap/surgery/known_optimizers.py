"""The optimizers that change a network: those that were given, and others, noticed when they step its parameters."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, overload
from weakref import WeakKeyDictionary, WeakSet

from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from dpap.anatomy.observing.hooks import Hook
from dpap.surgery.equivalence import CompactionError
from dpap.surgery.optimizer import check_state


class KnownOptimizers(Sequence[Optimizer]):
    """Optimizers whose state is silenced and sliced along with the network's parameters.

    Args:
        given: those that the user gave; kept alive.
        noticed: others that step the network's parameters; not kept alive.
        wrappers: of those that were given, such as may write weights themselves.

    Attributes:
        removed: whether anything was removed, so that state of before no longer fits.
    """

    removed = False

    def __init__(
        self, given: Iterable[Optimizer], noticed: Iterable[Optimizer] = (), wrappers: Iterable[object] = ()
    ) -> None:
        self.given = tuple(given)
        self.wrappers = tuple(wrappers)
        self.noticed: WeakSet[Optimizer] = WeakSet(noticed)

    def __iter__(self) -> Iterator[Optimizer]:
        yield from self.given
        states = [one.state for one in self.given]
        for one in self.wrappers:
            # many show the state of the optimizer inside as theirs
            if isinstance(one, Optimizer) and all(one.state is not state for state in states):
                yield one
        yield from tuple(self.noticed)

    def __len__(self) -> int:
        return len(tuple(iter(self)))

    @overload
    def __getitem__(self, index: int) -> Optimizer: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Optimizer, ...]: ...
    def __getitem__(self, index: int | slice) -> Optimizer | tuple[Optimizer, ...]:
        return tuple(self)[index]

    def __reduce__(self) -> tuple[type["KnownOptimizers"], tuple[Any, ...]]:
        return KnownOptimizers, (self.given, tuple(self.noticed), self.wrappers)


class Watch:
    """Notices every step of an optimizer that was not given, if it steps parameters of a network.

    Args:
        model: the network.
        known: takes the optimizer from its first step on.
        stepped: called after each of its steps; its owner keeps the watch alive.
    """

    def __init__(
        self, model: nn.Module, known: KnownOptimizers, stepped: Callable[[Optimizer], None]
    ) -> None:
        self.model = model
        self.known = known
        self.stepped = stepped
        # of other networks, with how many groups of parameters they had when that was found
        self._strangers: WeakKeyDictionary[Optimizer, int] = WeakKeyDictionary()
        _begin(self)

    def remove(self) -> None:
        """Watch no longer."""
        _end(self)

    def before_step(self, optimizer: Optimizer) -> None:
        """Take an optimizer to the known, where it is to step parameters of the network.

        Raises:
            RuntimeError: where it keeps state of units that were removed before it was noticed.
        """
        known, groups = self.known, optimizer.param_groups
        if optimizer in known.noticed or self._strangers.get(optimizer) == len(groups):
            return
        if any(optimizer is one for one in (*known.given, *known.wrappers)):
            return
        own = {id(parameter) for parameter in self.model.parameters()}
        if not any(id(parameter) in own for group in groups for parameter in group["params"]):
            self._strangers[optimizer] = len(groups)
            return
        if known.removed:
            _check_shapes(optimizer)
        known.noticed.add(optimizer)

    def after_step(self, optimizer: Optimizer) -> None:
        """Pass on a step of an optimizer that was not given."""
        if optimizer in self.known.noticed:
            self.stepped(optimizer)


def _check_shapes(optimizer: Optimizer) -> None:
    try:
        check_state(optimizer)
    except CompactionError as error:
        raise RuntimeError(
            f"{type(optimizer).__name__} was not given to Pruner, so its state was left as it was when units were "
            f"removed: give it, Pruner(model, example_inputs, optimizer), or let it start anew after the removal, "
            "optimizer.state.clear()"
        ) from error


# one pair of hooks of torch for all networks: it is never changed while torch runs through its hooks
_WATCHES: WeakSet[Watch] = WeakSet()
_HANDLES: list[Any] = []


def _begin(watch: Watch) -> None:
    if not _HANDLES:
        _HANDLES.append(register_optimizer_step_pre_hook(Hook(_before_any_step)))
        _HANDLES.append(register_optimizer_step_post_hook(Hook(_after_any_step)))
    _WATCHES.add(watch)


def _end(watch: Watch) -> None:
    _WATCHES.discard(watch)
    if not _WATCHES:
        for handle in _HANDLES:
            handle.remove()
        _HANDLES.clear()


def _before_any_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    for watch in tuple(_WATCHES):
        watch.before_step(optimizer)


def _after_any_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    for watch in tuple(_WATCHES):
        watch.after_step(optimizer)
