"""What a mistyped name was meant to be."""

from collections.abc import Iterable
from difflib import SequenceMatcher

CLOSE = 0.6
"""How alike two names must be, from 0 to 1, for one to be offered for the other."""
MEANT = "; did you mean "
OF_PARTS = 0.9
"""How much two names with equal last parts, such as `epochs` and `training.epochs`, are alike."""


def nearest(given: object, known: Iterable[str]) -> str | None:
    """The known name that is most like the one given; None where none is close.

    Names may have parts, joined by dots: a name is also found by its last part alone.

    Example:
        >>> from dpap.spelling import nearest
        >>> nearest("train.epochs", ["training.epochs", "training.threads", "pruning.end_epoch"])
        'training.epochs'
    """
    best = max(known, key=lambda name: _alike(str(given), name), default=None)
    return best if best is not None and _alike(str(given), best)[0] >= CLOSE else None


def suggestion(given: object, known: Iterable[str]) -> str:
    """The end of a message about a name that is not known: the nearest one, or nothing."""
    name = nearest(given, known)
    return "" if name is None else f"{MEANT}{name}?"


def _alike(one: str, other: str) -> tuple[float, float]:
    """How alike two names are, by the whole or the last part; and by the whole alone, which breaks ties."""
    one, other = (name.lower().replace("-", "_") for name in (one, other))
    whole = SequenceMatcher(None, one, other).ratio()
    last = SequenceMatcher(None, one.rpartition(".")[2], other.rpartition(".")[2]).ratio()
    return max(whole, OF_PARTS * last), whole
