"""Which layers keep a removal from working, so that all others can lose their units."""

from collections.abc import Callable, Collection, Sequence

from dpap.anatomy import Wiring
from dpap.anatomy.prunability import propagate_unremovable

SUSPECTS = 2
"""Sets that are tried alone where a problem showed."""


def find_culprits(
    sets: Sequence[list[str]],
    problem: Callable[[list[str]], str | None],
    near: Callable[[], Collection[str]] = tuple,
) -> list[tuple[list[str], str]]:
    """Sets of layers without which a removal works, and what each of them made go wrong.

    Args:
        sets: of layers, within which what leaves one depends on what leaves another.
        problem: what goes wrong when units leave these layers only, or None.
        near: layers near which the last problem showed, the likeliest first; their sets are tried first.
    """
    left, found = list(sets), []

    def wrong(count: int) -> str | None:
        return problem([name for names in left[:count] for name in names])

    def suspect() -> tuple[list[str], str] | None:
        likely: list[list[str]] = []
        for name in near():
            likely += [names for names in left if name in names and names not in likely]
        for names in likely[:SUSPECTS]:
            why = problem(names)
            if why is not None:
                return names, why
        return None

    works, step = 0, len(left)
    while left and (why := wrong(len(left))) is not None:
        if (guilty := suspect()) is not None:
            left.remove(guilty[0])
            found.append(guilty)
            works, step = 0, len(left)
            continue
        before, fails = works, len(left)
        while fails - works > 1:
            middle = min(works + step, (works + fails) // 2)
            now = wrong(middle)
            if now is None:
                works, step = middle, 2 * step
            else:
                fails, why = middle, now
        found.append((left.pop(fails - 1), why))
        # what lies before it works; the next one is likely to be about as far from here
        step = fails - before
    return found


def only_silence(wiring: Wiring, names: Sequence[str], reason: str) -> None:
    """Let no unit of some layers leave any more."""
    for name in names:
        layer = wiring.layers[name]
        if layer.removable:
            layer.prunability, layer.reason = "silenced" if layer.can_die else "whole", reason
    propagate_unremovable(wiring)
