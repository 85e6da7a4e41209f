"""Runs side by side; each figure is a function of their records alone."""

from collections.abc import Callable, Sequence
from functools import partial

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from dpap.experiment.formatting import accuracy, rounded
from dpap.report.comparison_figures import MARKERS, SIGNS, STYLES, size_axis
from dpap.report.figures import line, zoom_in
from dpap.report.records import Cost, Epoch, Run
from dpap.report.style import (
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
from dpap.report.words import reported_accuracy

Named = tuple[str, Run]
LONGEST = 22
"""Characters of a name in a figure; of a longer one the end is shown, which tells runs of one folder apart."""
SIZES: dict[str, Callable[[Cost], float | None]] = {
    "parameters": lambda cost: cost.parameters,
    "MACs": lambda cost: cost.macs,
}


@styled
def accuracies(runs: Sequence[Named]) -> Figure | None:
    """Test accuracy over the epochs, a line a run."""
    return _over_epochs(runs, "Accuracy while learning", lambda _, epoch: epoch.test_accuracy, accuracy)


@styled
def weights_alive(runs: Sequence[Named]) -> Figure | None:
    """Weights alive over the epochs, a line a run; of a dense one all of them."""
    return _over_epochs(runs, "Weights alive", _alive, rounded)


def _alive(run: Run, epoch: Epoch) -> float | None:
    """Of every layer; a dense run records them at its end alone."""
    if epoch.layers:
        return float(sum(layer.weights_alive for layer in epoch.layers))
    before = run.summary.before if run.summary else None
    return None if before is None or run.prunes else float(sum(layer.weights or 0 for layer in before.layers))


@styled
def accuracy_by_size(runs: Sequence[Named]) -> Figure | None:
    """Accuracy against parameters and against MACs of the networks that were kept, a point a run."""
    points = []
    for index, (name, run) in enumerate(runs):
        cost, reached = run.summary.after if run.summary else None, reported_accuracy(run)
        sizes = [None if cost is None else size(cost) for size in SIZES.values()]
        known = [size for size in sizes if size]
        if reached is not None and len(known) == len(SIZES):
            points.append((index, name, reached, known))
    if not points:
        return None
    axes = panel("Accuracy against size", "test data; up and to the left is better", *_shape(runs))
    labels: list[Label] = []
    for half, (place, quantity) in zip(halves(axes), enumerate(SIZES), strict=True):
        size_axis(half, quantity, [known[place] for _, _, _, known in points])
        labels.clear()
        for index, name, reached, known in points:
            _, colour = STYLES[index % len(STYLES)]
            marker = index % len(MARKERS)
            half.plot(
                [known[place]], [reached], color=colour, linestyle="none", marker=MARKERS[marker], markersize=6,
                gid=name,
            )  # fmt: skip
            labels.append((reached, f"{SIGNS[marker]} {_short(name)}", colour))
    axes.margins(y=0.15)
    percent_axis(axes)
    end_labels(half, labels)
    return figure_of(axes)


def _over_epochs(
    runs: Sequence[Named],
    title: str,
    value: Callable[[Run, Epoch], float | None],
    write: Callable[[float], str],
) -> Figure | None:
    """A line a run; shares in percent, counts rounded and from 0."""
    axes = panel(title, "after each epoch, the first is 1", *_shape(runs))
    labels: list[Label] = []
    for index, (name, run) in enumerate(runs):
        style, colour = STYLES[index % len(STYLES)]
        drawn = line(
            axes, run.epochs, partial(value, run), name, color=colour, linestyle=style, linewidth=1.8
        )
        labels += [(y, f"{_short(name)}  {write(y)}", colour) for y in drawn[-1:]]
    if not labels:
        return None
    epoch_axis(axes, [epoch.epoch for _, run in runs for epoch in run.epochs])
    if write is accuracy:
        zoom_in(axes)
        percent_axis(axes)
    else:
        axes.set_ylim(0, 1.06 * axes.get_ylim()[1])
        few_ticks(axes)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda count, _: rounded(count)))
    end_labels(axes, labels)
    return figure_of(axes)


def _shape(runs: Sequence[Named]) -> tuple[float, float, float]:
    """Height, and room on the left and on the right, for one label a run."""
    longest = max(len(_short(name)) for name, _ in runs)
    return max(3.2, 1.3 + 0.2 * len(runs)), 0.6, 0.95 + 0.075 * longest


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"
