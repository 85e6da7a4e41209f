"""Times of several candidates that take turns in one process."""

import random
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import torch

Name = TypeVar("Name", bound=Hashable)


def alternate(
    candidates: Mapping[Name, Callable[[], object]],
    rounds: int,
    device: torch.device,
    *,
    warm_up: int = 2,
    mixed: bool = False,
) -> dict[Name, list[float]]:
    """Seconds of each candidate in each round; every round runs all of them, beginning with another one.

    `warm_up` rounds that are not measured come first. Other load on the machine then slows all alike, so the ratio
    within a round is more reliable than the seconds. `mixed`: candidates of several runtimes, each of which slows what
    comes after it: the order is random, and each runs once unmeasured before it is measured.
    """
    names, chance = list(candidates), random.Random(0)
    seconds: dict[Name, list[float]] = {name: [] for name in names}
    for number in range(-warm_up, rounds):
        first = number % len(names)
        order = chance.sample(names, len(names)) if mixed else names[first:] + names[:first]
        for name in order:
            if mixed:
                candidates[name]()
            synchronise(device)
            start = time.perf_counter()
            candidates[name]()
            synchronise(device)
            if number >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def compared(seconds: Mapping[Name, list[float]], baseline: Name) -> dict[Name, dict[str, float]]:
    """Median milliseconds, and how often each runs in the time of one run of the baseline.

    The ratio is the median of the ratios within a round; `low` and `high` are their quartiles, within the measured.
    """
    summary = {}
    for name, times in seconds.items():
        ratios = [base / own for base, own in zip(seconds[baseline], times, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        summary[name] = {
            "milliseconds": 1e3 * statistics.median(times),
            "ratio": middle,
            "low": low,
            "high": high,
            "n": len(times),
        }
    return summary


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
