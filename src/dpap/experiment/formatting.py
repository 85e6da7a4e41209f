"""Numbers as people write them, to three figures or as many as they need; what is absent is a dash."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec

ABSENT = "–"
PICO = 1e-12
Real = int | float
Number = Real | None
P = ParamSpec("P")

SMALL = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))
LARGE = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def dash_if_absent(write: Callable[Concatenate[Real, P], str]) -> Callable[Concatenate[Number, P], str]:
    """`write`, with a dash for None and NaN."""

    @functools.wraps(write)
    def wrapper(value: Number, *args: P.args, **kwargs: P.kwargs) -> str:
        return ABSENT if value is None or math.isnan(value) else write(value, *args, **kwargs)

    return wrapper


@dash_if_absent
def percent(share: Real, decimals: int = 1) -> str:
    """0.601 -> 60.1%."""
    return f"{share:.{decimals}%}"


def accuracy(share: Number) -> str:
    """0.982 -> 98.20%."""
    return percent(share, 2)


@dash_if_absent
def loss(value: Real) -> str:
    """0.06213 -> 0.0621."""
    return f"{value:.4f}"


@dash_if_absent
def count(value: Real) -> str:
    """596535 -> 596,535."""
    return f"{value:,.0f}"


@dash_if_absent
def rounded(value: Real) -> str:
    """596535 -> 597k."""
    return "".join(_scaled(value, LARGE))


@dash_if_absent
def quantity(value: Real, unit: str) -> str:
    """0.00123 J -> 1.23 mJ."""
    number, prefix = _scaled(value, SMALL)
    return f"{number} {prefix}{unit}"


@dash_if_absent
def duration(seconds: Real) -> str:
    """0.842 -> 0.842 s, 42 -> 42 s, 185 -> 3 min 05 s, 7800 -> 2 h 10 min."""
    if seconds < 9.995:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def ratio(after: Number, before: Number) -> str:
    """(21, 60) -> 0.35×."""
    if after is None or not before or math.isnan(after / before):
        return ABSENT
    return f"{after / before:.2g}×" if after / before < 0.1 else f"{after / before:.2f}×"


def _scaled(value: Real, prefixes: Sequence[tuple[float, str]]) -> tuple[str, str]:
    """Three figures and the first prefix at which they reach 1; else the last."""
    size, prefix = next((each for each in prefixes if abs(value) >= 0.9995 * each[0]), prefixes[-1])
    return f"{value / size:.3g}", prefix
