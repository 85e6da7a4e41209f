"""Methods side by side, over their seeds; each figure is a function of one recipe's results alone."""

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from dpap.experiment.comparing.methods import ABLATIONS, DENSE
from dpap.experiment.comparing.results import EpochResult, Result
from dpap.experiment.comparing.significance import Group, Target
from dpap.experiment.formatting import accuracy, count, rounded
from dpap.report.figures import zoom_in
from dpap.report.style import (
    BLUE,
    GRID,
    INK,
    MUTED,
    SERIES,
    VERMILION,
    Label,
    end_labels,
    epoch_axis,
    few_ticks,
    figure_of,
    halves,
    panel,
    percent_axis,
    styled,
)

LINES = 5
"""Lines over the epochs; more are not distinct, so of more targets some are left out between first and last."""
STYLES = list(itertools.product(("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (6, 1, 1, 1))), SERIES))
MARKERS, SIGNS = "osD^vP", "●■◆▲▼✚"
WIDTHS = (DENSE, "scratch")
"""Methods that train a dense network of some width, from scratch."""
SIZES: dict[str, Callable[[Result], float]] = {
    "parameters": lambda run: run.parameters,
    "MACs": lambda run: run.macs,
}
COLOURS = {"dpap": BLUE, "paper": VERMILION, "units_paper": VERMILION}
"""Of the rules that are shown among others, most important first."""


@styled
def accuracy_by_size(table: Sequence[Group]) -> Figure | None:
    """Accuracy against parameters and against MACs, logarithmic: dense networks as a line, each method as points.

    What lies above the line is better than a dense network of that size, trained from scratch.
    """
    methods = list(dict.fromkeys(group.first.method for group in table))
    if not set(methods) - {DENSE}:
        return None
    dense = [group for group in table if group.first.method in WIDTHS]
    line = "line: dense, from scratch; above it is better"
    if not set(methods) & (set(WIDTHS) - {DENSE}):
        line = "dense from scratch is not measured"
    methods = [method for method in methods if method not in WIDTHS]
    methods = [method for method in methods if method not in ABLATIONS] or methods
    methods.sort(key=lambda method: method != _leading_method(table))
    height = max(3.4, 1.3 + 0.2 * len(methods))
    axes = panel("Accuracy against size", f"{line}; {_seeds(table)}", height, right=1.75)
    for half, (name, size) in zip(halves(axes), SIZES.items(), strict=True):
        labels: list[Label] = []
        size_axis(half, name, [group.mean(size) for group in table])
        dense.sort(key=lambda group: group.mean(size))
        if dense:
            _points(half, dense, size, color=MUTED, linestyle="-", marker="o", gid=DENSE)
            words = "dense, from scratch" if len(dense) > 1 else "dense"
            labels.append((_accuracy(dense[-1])[0], words, MUTED))
        for index, method in enumerate(methods):
            own = sorted((group for group in table if group.first.method == method), key=_left)
            colour = SERIES[index % len(SERIES)]
            shape = (index + index // len(SERIES)) % len(MARKERS)
            _points(half, own, size, color=colour, linestyle="none", marker=MARKERS[shape], gid=method)
            labels.append((_accuracy(own[0])[0], f"{SIGNS[shape]} {_name(method)}", colour))
    percent_axis(axes)
    end_labels(half, labels)
    return figure_of(axes)


@styled
def accuracies(table: Sequence[Group], epochs: Sequence[EpochResult]) -> Figure | None:
    """Test accuracy over the epochs of the dense twins and of the leading method, target by target."""
    axes = panel(
        "Accuracy while learning",
        f"{_leading_method(table)} and dense, test data; {_seeds(table)}",
        right=1.65,
    )
    labels = _lines(axes, table, epochs, lambda epoch: epoch.accuracy, accuracy)
    if not labels:
        return None
    zoom_in(axes)
    percent_axis(axes)
    end_labels(axes, labels)
    return figure_of(axes)


@styled
def weights_alive(table: Sequence[Group], epochs: Sequence[EpochResult]) -> Figure | None:
    """Weights alive over the epochs, of the leading method at each target."""
    axes = panel(
        "Weights alive", f"{_leading_method(table)} and dense; {_seeds(table)}", left=0.7, right=1.55
    )
    labels = _lines(axes, table, epochs, lambda epoch: float(epoch.weights_alive), count)
    if len(labels) < 2:
        return None
    axes.set_ylim(0, 1.06 * axes.get_ylim()[1])
    few_ticks(axes)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: rounded(value)))
    end_labels(axes, labels)
    return figure_of(axes)


@styled
def accuracy_by_pruning(table: Sequence[Group]) -> Figure | None:
    """Accuracy of each method against the share of weights that it pruned; of the first kind of target alone.

    What is left is drawn to a logarithmic scale, or all that lies beyond 90% would share a tenth of the width.
    Ablations are left out, unless there is nothing else: they are of one target as a rule.
    """
    pruned = [group for group in table if group.first.method != DENSE]
    pruned = [group for group in pruned if group.first.method not in ABLATIONS] or pruned
    pruned = [group for group in pruned if group.first.target_of == pruned[0].first.target_of]
    methods = list(dict.fromkeys(group.first.method for group in pruned))
    if not methods:
        return None
    subtitle = f"test data, {_protocol(table)}; {_seeds(table)}"
    height = max(3.2, 1.3 + 0.2 * len(methods))
    axes = panel("Accuracy against pruning", subtitle, height, right=1.7, below=0.55)
    labels: list[Label] = []
    for group in table:
        if group.first.method == DENSE:
            mean, deviation = _accuracy(group)
            axes.axhline(mean, color=MUTED, linewidth=1.3, linestyle=(0, (3, 1.5)), gid="dense")
            axes.axhspan(mean - deviation, mean + deviation, color=MUTED, alpha=0.1, linewidth=0)
            labels.append((mean, f"dense {accuracy(mean)}", MUTED))
    for index, method in enumerate(methods):
        line, colour = STYLES[index % len(STYLES)]
        own = sorted((group for group in pruned if group.first.method == method), key=_left, reverse=True)
        means, deviations = zip(*map(_accuracy, own), strict=True)
        axes.errorbar(
            [_left(group) for group in own], means, deviations, color=colour, linestyle=line,
            linewidth=1.6, elinewidth=1.0, capsize=2.5, markersize=4.5, marker=MARKERS[index % len(MARKERS)],
            label=method,
        )  # fmt: skip
        labels.append((means[-1], _name(method), colour))
    _pruned_axis(axes, [_left(group) for group in pruned])
    percent_axis(axes)
    end_labels(axes, labels)
    return figure_of(axes)


@styled
def convergence(table: Sequence[Group]) -> Figure | None:
    """Epochs until the dense twin's best accuracy is reached, of the seeds that reach it."""
    rows, never = [], 0
    for group in table:
        reached = [run.converged for run in group.results if run.converged is not None]
        if reached or group.first.method == _leading_method(table):
            rows.append((_title(group), reached, len(group.results), _colour(group)))
        else:
            never += 1
    if len(rows) < 2 or not any(reached for _, reached, _, _ in rows):
        return None
    others = f"; {never} others: never" if never else "; dots: seeds"
    axes = _bars(
        "Epochs to converge",
        f"to the dense twin’s best accuracy, mean{others}",
        [name for name, _, _, _ in rows],
    )
    for place, (_, reached, seeds, colour) in enumerate(rows):
        words = "not reached"
        if reached:
            mean = statistics.fmean(reached)
            axes.barh(place, mean, height=0.62, color=colour, alpha=0.85)
            axes.plot(reached, [place] * len(reached), "o", color=INK, markersize=2.6, alpha=0.7)
            words = f"{mean:.1f}" + ("" if len(reached) == seeds else f", {len(reached)} of {seeds} seeds")
        _label_row(axes, place, words)
    axes.set_xlim(0, 1.02 * max(run.epochs for group in table for run in group.results))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("epochs", size=9.3)
    return figure_of(axes)


@styled
def differences(table: Sequence[Group], target: Target) -> Figure | None:
    """Accuracy of every method at one target less that of its dense twin, with the 95% interval of the mean."""
    own = [
        (group, group.to_dense) for group in table if group.to_dense is not None and group.target == target
    ]
    if not own:
        return None
    at = f", target{_percent(target)}" if target[0] is not None else ""
    axes = _bars(
        f"Beside the dense twin{at}",
        "points of accuracy, paired; bars: 95% interval, dots: seeds",
        [_name(group.first.method) for group, _ in own],
    )
    for place, (group, gain) in enumerate(own):
        axes.barh(place, 100 * gain.mean, height=0.62, color=_colour(group), alpha=0.85)
        axes.plot(
            [100 * v for v in gain.values],
            [place] * len(gain.values),
            "o",
            color=INK,
            markersize=2.6,
            alpha=0.7,
        )
        if gain.margin is not None:
            axes.errorbar(100 * gain.mean, place, xerr=100 * gain.margin, color=INK, capsize=3, linewidth=1.1)
        _label_row(axes, place, f"{100 * gain.mean:+.2f} {gain.verdict}".replace("-", "−"))
    values = [0.0, *(100 * value for _, gain in own for value in gain.values)]
    room = 0.35 * (max(values) - min(values)) or 1.0
    axes.set_xlim(
        min(values) - room, max(values) + room
    )  # an interval of two seeds may be wider: it runs off
    axes.axvline(0, color=MUTED, linewidth=1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "−") if value else "0")
    )
    axes.set_xlabel("points", size=9.3)
    return figure_of(axes)


def _points(
    axes: Axes, groups: Sequence[Group], size: Callable[[Result], float], *, gid: str, **look: Any
) -> None:
    """Means over the seeds of accuracy against size, with the spread of the accuracy."""
    means, deviations = zip(*map(_accuracy, groups), strict=True)
    axes.errorbar(
        [group.mean(size) for group in groups], means, deviations, linewidth=1.6, elinewidth=1.0, capsize=2.5,
        markersize=4.5, **look,
    )[0].set_gid(gid)  # fmt: skip


def size_axis(axes: Axes, name: str, sizes: Sequence[float]) -> None:
    """Numbers to a logarithmic scale, with a few round ones as ticks."""
    least, most = min(sizes) / 1.3, 1.3 * max(sizes)
    axes.set_xscale("log")
    axes.set_xlim(least, most)
    decades = range(math.floor(math.log10(least)), math.ceil(math.log10(most)))
    for steps in ((1,), (1, 3), (1, 2, 5), range(1, 10)):
        ticks = [10.0**decade * step for decade in decades for step in steps]
        ticks = [tick for tick in ticks if least <= tick <= most]
        if len(ticks) > 1:
            break
    axes.xaxis.set_major_locator(FixedLocator(ticks or [max(sizes)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: rounded(value)))
    axes.set_xlabel(name, size=9.3)


def _lines(
    axes: Axes,
    table: Sequence[Group],
    epochs: Sequence[EpochResult],
    value: Callable[[EpochResult], float],
    write: Callable[[float], str],
) -> list[Label]:
    """Draws mean and range over the seeds of the dense twins and the leading method; returns the end labels."""
    methods = (DENSE, _leading_method(table))
    dense, own = ([group for group in table if group.first.method == method] for method in methods)
    if len(own) > LINES:
        own = [own[round(place * (len(own) - 1) / (LINES - 1))] for place in range(LINES)]
    shown = dense + own
    labels: list[Label] = []
    for index, group in enumerate(shown):
        first, seeds = group.first, {run.seed for run in group.results}
        values: dict[int, list[float]] = {}
        for each in epochs:
            if (
                each.method == first.method
                and each.seed in seeds
                and (each.target, each.target_of) == group.target
            ):
                values.setdefault(each.epoch, []).append(value(each))
        if not values:
            continue
        colour = MUTED if first.method == DENSE else SERIES[(index - 1) % len(SERIES)]
        x = sorted(values)
        means = [statistics.fmean(values[epoch]) for epoch in x]
        axes.plot(
            x, means, color=colour, linewidth=1.9, marker="o" if len(x) == 1 else None, markersize=4,
            gid=_title(group),
        )  # fmt: skip
        axes.fill_between(
            x, [min(values[epoch]) for epoch in x], [max(values[epoch]) for epoch in x],
            color=colour, alpha=0.15, linewidth=0,
        )  # fmt: skip
        labels.append((means[-1], f"{_title(group)}  {write(means[-1])}", colour))
    if labels:
        epoch_axis(axes, [each.epoch for each in epochs])
    return labels


def _pruned_axis(axes: Axes, left: Sequence[float]) -> None:
    """Shares of the weights that are left, falling to the right and written as what is pruned."""
    most, least = 1.08 * max(left), min(left) / 1.08
    axes.set_xscale("log")
    axes.set_xlim(most, least)
    decades = range(math.floor(math.log10(least)), 1)
    ticks = [10.0**decade * step for decade in decades for step in (1, 2, 5)]
    ticks = [tick for tick in ticks if least <= tick <= most]
    if len(ticks) < 2:
        ticks = sorted({float(f"{share:.2g}") for share in left})
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * (1 - value):.6g}%"))
    axes.set_xlabel("weights pruned", size=9.3)


def _bars(title: str, subtitle: str, names: Sequence[str]) -> Axes:
    """Axes with one row a name, the first on top."""
    left = 0.25 + 0.078 * max(map(len, names))
    axes = panel(title, subtitle, 1.35 + 0.24 * len(names), left=left, right=1.15)
    axes.grid(visible=False)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    return axes


def _label_row(axes: Axes, place: int, words: str) -> None:
    axes.text(
        1.02, place, words, transform=axes.get_yaxis_transform(), size=8.5, color=MUTED, va="center_baseline"
    )


def _leading_method(table: Sequence[Group]) -> str:
    """The method that is drawn over the epochs: the default rule, the paper's, or what comes first."""
    methods = [group.first.method for group in table if group.first.method != DENSE]
    return next((name for name in COLOURS if name in methods), methods[0] if methods else "")


def _left(group: Group) -> float:
    """Share of the weights that are left; of none the least that a logarithmic axis can show beside the others."""
    return max(1 - group.mean(lambda run: run.sparsity), 1e-4)


def _accuracy(group: Group) -> tuple[float, float]:
    """Mean and standard deviation, 0 of a single seed."""
    return group.mean(lambda run: run.accuracy), group.deviation(lambda run: run.accuracy) or 0.0


def _protocol(table: Sequence[Group]) -> str:
    return "protocol " + ", ".join(dict.fromkeys(run.protocol for group in table for run in group.results))


def _seeds(table: Sequence[Group]) -> str:
    counts = sorted({len(group.results) for group in table})
    return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"


def _colour(group: Group) -> str:
    return COLOURS.get(group.first.method, MUTED)


def _name(method: str) -> str:
    return method.replace("_", " ")


def _title(group: Group) -> str:
    return _name(group.first.method) + _percent(group.target)


def _percent(target: Target) -> str:
    share, of = target
    return ("" if share is None else f" {100 * share:g}%") + (
        "" if of == "weights" else f" of {of.replace('_', ' ')}"
    )
