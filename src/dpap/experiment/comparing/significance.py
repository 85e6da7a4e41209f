"""Methods beside their dense twins: differences paired by seed, and what is significant."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dpap.experiment.comparing.methods import DENSE
from dpap.experiment.comparing.results import Result

# 0.975 quantiles of Student's t for 1 to 30 degrees of freedom; beyond, 1.96 of the normal distribution
STUDENT_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
MISSED = 0.01  # a method that prunes this much less than its target is not compared with those that met it


Target = tuple[float | None, str]
"""The share that was to be pruned, and of what."""


@dataclass(frozen=True)
class Difference:
    """Differences of pairs.

    Attributes:
        values: one a pair.
        mean: of them.
        deviation: sample standard deviation; None for a single pair.
        margin: half the width of the 95% t-interval of the mean; None for a single pair.
        verdict: "better", "worse", "tie" where the margin covers the mean, or "n = 1".
    """

    values: tuple[float, ...]
    mean: float
    deviation: float | None
    margin: float | None
    verdict: str


@dataclass(frozen=True)
class Group:
    """The runs of one recipe, method and target (of one kind), over the seeds: a line of the table.

    Attributes:
        results: one a seed.
        to_dense: accuracies less those of the dense twins; None for the dense twins, and while there are none.
        time: seconds of training as a share of the dense twins', mean over the seeds; None likewise.
        missed: whether less was pruned than the target.
        best: whether it has the highest mean accuracy of its target, or ties with it.
    """

    results: tuple[Result, ...]
    to_dense: Difference | None
    time: float | None
    missed: bool
    best: bool

    @property
    def target(self) -> Target:
        """What they were to prune."""
        return target_of(self.first)

    @property
    def first(self) -> Result:
        """One of the runs, for what all share."""
        return self.results[0]

    def mean(self, value: Callable[[Result], float]) -> float:
        """Over the seeds."""
        return statistics.fmean(map(value, self.results))

    def deviation(self, value: Callable[[Result], float]) -> float | None:
        """Sample standard deviation over the seeds; None for a single seed."""
        return statistics.stdev(map(value, self.results)) if len(self.results) > 1 else None


def target_of(result: Result) -> Target:
    """What a run was to prune."""
    return result.target, result.target_of


def difference(values: Sequence[float]) -> Difference:
    """What differences of pairs show about their mean.

    Raises:
        ValueError: when there is no pair.
    """
    if not values:
        raise ValueError("expected at least one pair, got none")
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Difference(tuple(values), mean, None, None, "n = 1")
    deviation = statistics.stdev(values)
    freedom = len(values) - 1
    quantile = STUDENT_T[freedom - 1] if freedom <= len(STUDENT_T) else 1.96
    margin = quantile * deviation / math.sqrt(len(values))
    verdict = "tie" if abs(mean) <= margin else "better" if mean > 0 else "worse"
    return Difference(tuple(values), mean, deviation, margin, verdict)


def groups(results: Sequence[Result]) -> dict[str, list[Group]]:
    """The lines of each recipe's table: the dense twins, then target by target, in the order of the runs."""
    tables: dict[str, list[Group]] = {}
    for recipe in dict.fromkeys(each.recipe for each in results):
        own = [each for each in results if each.recipe == recipe]
        dense = {each.seed: each for each in own if each.method == DENSE}
        runs_of_line: dict[tuple[str, Target], list[Result]] = {}
        for each in own:
            runs_of_line.setdefault((each.method, target_of(each)), []).append(each)
        kinds = list(dict.fromkeys(each.target_of for each in own))
        targets = list(dict.fromkeys(target_of(each) for each in own if each.method != DENSE))
        table = [_group(runs, dense, False) for (method, _), runs in runs_of_line.items() if method == DENSE]
        for target in sorted(targets, key=lambda each: (kinds.index(each[1]), each[0] or 0.0)):
            lines = [
                runs
                for (method, own_target), runs in runs_of_line.items()
                if method != DENSE and own_target == target
            ]
            best = _best(lines)
            table += [_group(runs, dense, any(runs is each for each in best)) for runs in lines]
        tables[recipe] = table
    return tables


def _best(lines: Sequence[list[Result]]) -> list[list[Result]]:
    """The lines that nothing of their target is shown to beat; a line alone is compared with nothing."""
    met = [runs for runs in lines if not _missed(runs)]
    if len(met) < 2:
        return []
    first = max(met, key=lambda runs: statistics.fmean(each.accuracy for each in runs))
    best = [first]
    for runs in met:
        pairs = _pairs(runs, {each.seed: each for each in first})
        if runs is not first and pairs and _ties(difference(pairs)):
            best.append(runs)
    return best


def _ties(to_best: Difference) -> bool:
    return to_best.verdict == "tie" or (to_best.verdict == "n = 1" and to_best.mean == 0)


def _pairs(runs: Sequence[Result], others: dict[int, Result]) -> list[float]:
    return [each.accuracy - others[each.seed].accuracy for each in runs if each.seed in others]


def _missed(runs: Sequence[Result]) -> bool:
    target, achieved = runs[0].target, [each.achieved for each in runs if each.achieved is not None]
    return target is not None and bool(achieved) and statistics.fmean(achieved) < target - MISSED


def _group(runs: list[Result], dense: dict[int, Result], best: bool) -> Group:
    pairs = _pairs(runs, dense) if runs[0].method != DENSE else []
    times = [each.seconds / dense[each.seed].seconds for each in runs if each.seed in dense]
    return Group(
        tuple(runs),
        difference(pairs) if pairs else None,
        statistics.fmean(times) if times else None,
        _missed(runs),
        best,
    )
