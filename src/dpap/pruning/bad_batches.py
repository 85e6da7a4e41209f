"""Batches with values that are not finite: left out of what is remembered, counted, and named where nothing is left."""

import warnings
from collections.abc import Collection
from typing import Any

from dpap.pruning.state_form import check_counts, check_form


class BadBatches:
    """What was left out in the present epoch.

    Attributes:
        batch: training forwards of this epoch so far; the present one is the last of them.
        left_out: presentations or steps of which something was left out.
    """

    def __init__(self) -> None:
        self.batch = 0
        self.left_out = 0
        self._first: dict[str, int] = {}
        self._good: set[str] = set()
        self._warned = False

    def note(self, good: Collection[str], bad: Collection[str]) -> None:
        """Note in which layers a presentation, or a step, was finite, and in which not; warns once."""
        self._good.update(good)
        if not bad:
            return
        self.left_out += 1
        for name in bad:
            self._first.setdefault(name, self.batch)
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"batch {self.batch} of this epoch has values that are not finite (in {_listed(bad)}): such batches "
                "are left out of what is remembered, and counted in the report",
                stacklevel=2,
            )

    def first(self, name: str) -> str:
        """In words, when something of a layer was not finite first; nothing where all was."""
        return f" (first in batch {self._first[name]})" if name in self._first else ""

    def end_epoch(self) -> int:
        """Begin to count anew; returns how much was left out.

        Raises:
            RuntimeError: where all that was observed of a layer was left out; a new count has begun then too.
        """
        left_out, first = self.left_out, self._first
        lost = [name for name in first if name not in self._good]
        self.batch, self.left_out, self._first, self._good = 0, 0, {}, set()
        if lost:
            raise RuntimeError(
                f"all values of {_listed(lost)} that were observed in this epoch were infinite or NaN, first in batch "
                f"{min(first[name] for name in lost)}: training has diverged or its data is broken; go back to an "
                "earlier checkpoint, lower the learning rate, or look at that batch"
            )
        return left_out

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"left_out": self.left_out, "first": dict(self._first), "good": sorted(self._good)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            ValueError: where it is something else.
        """
        check_form(state, {"left_out": 0, "first": {}, "good": []}, "bad_batches")
        check_counts(state["first"], "bad_batches, first")
        self.left_out, self._first = state["left_out"], dict(state["first"])
        self._good = set(state["good"])


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:3])
    return f"{shown} and {len(names) - 3} more layers" if len(names) > 3 else shown
