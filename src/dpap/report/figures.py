"""A run over its epochs; each figure is a function of the records alone."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dpap.experiment.formatting import accuracy, count, duration, percent
from dpap.report.records import Epoch, Layer, Run
from dpap.report.style import (
    BLUE,
    GOLD,
    GREEN,
    INK,
    MUTED,
    PAPER,
    SERIES,
    VERMILION,
    Label,
    end_labels,
    epoch_axis,
    few_ticks,
    figure_of,
    panel,
    percent_axis,
    styled,
)

LINES = 6
"""Layers that are drawn as lines; more are drawn as rows of a map."""


@styled
def accuracies(run: Run) -> Figure | None:
    """Accuracy on training, validation and test data, the dense twin's beside them."""
    axes = panel("Accuracy", "share of samples classified correctly; training data dashed", right=1.9)
    labels: list[Label] = []
    own = ("pruned", BLUE) if run.prunes else ("dense", MUTED)
    for source, name, colour in ((run.twin, "twin", MUTED), (run, *own)):
        if source is None:
            continue
        test = line(axes, source.epochs, lambda e: e.test_accuracy, f"{name} test", color=colour, linewidth=2)
        train = line(
            axes, source.epochs, lambda e: e.train_accuracy, f"{name} train",
            color=colour, linewidth=1.1, linestyle=(0, (3, 1.5)),
        )  # fmt: skip
        label = "dense twin" if name == "twin" else name
        labels += [(y, f"{label} {accuracy(y)}", colour) for y in test[-1:]]
        labels += [(y, f"{label}, train {percent(y)}", colour) for y in train[-1:]]
    held_out = line(
        axes, run.epochs, lambda e: e.validation_accuracy, "validation", color=GREEN, linewidth=1.3
    )
    labels += [(y, f"validation {accuracy(y)}", GREEN) for y in held_out[-1:]]
    if not labels:
        return None
    epoch_axis(axes, _all_epochs(run))
    zoom_in(axes)
    percent_axis(axes)
    end_labels(axes, labels)
    return figure_of(axes)


@styled
def sparsities(run: Run) -> Figure | None:
    """Share of weights (and neuron-timesteps) that is dead, beside the share that was scheduled."""
    axes = panel("What died", "share of the prunable weights; dashed: what was scheduled", right=1.4)
    labels: list[Label] = []
    dead = line(axes, run.epochs, lambda e: e.sparsity, "sparsity", color=BLUE, linewidth=2)
    if not dead or not run.prunes:
        return None
    points = [(e.epoch, e.sparsity) for e in run.epochs if e.sparsity is not None]
    axes.fill_between([x for x, _ in points], dead, color=BLUE, alpha=0.12, linewidth=0)
    labels.append((dead[-1], f"weights {percent(dead[-1])}", BLUE))
    if any(e.timestep_sparsity for e in run.epochs):
        steps = line(
            axes, run.epochs, lambda e: e.timestep_sparsity, "timestep sparsity", color=GREEN, linewidth=1.6
        )
        labels.append((steps[-1], f"timesteps {percent(steps[-1])}", GREEN))
    if run.target_cost:
        saved = line(axes, run.epochs, lambda e: e.achieved, "achieved", color=GOLD, linewidth=1.6)
        labels += [(y, f"{run.target_cost} {percent(y)}", GOLD) for y in saved[-1:]]
    target = line(
        axes, run.epochs, lambda e: e.target, "target", color=GOLD, linewidth=1.5, linestyle=(0, (3, 1.5))
    )
    labels += [(y, f"scheduled {percent(y)}", GOLD) for y in target[-1:]]
    epoch_axis(axes, _all_epochs(run))
    axes.set_ylim(0, min(1.02, max(0.05, 1.12 * max([y for y, _, _ in labels] + dead))))
    percent_axis(axes)
    end_labels(axes, labels)
    return figure_of(axes)


@styled
def units_alive(run: Run) -> Figure | None:
    """Share of each layer's units that is alive, with the counts at the end."""
    return _by_layer(
        run, "Units alive", "neurons and channels, share of the dense layer",
        lambda layer: layer.alive, lambda layer: layer.units,
    )  # fmt: skip


@styled
def weights_alive(run: Run) -> Figure | None:
    """Share of each layer's weights that is alive, with the counts at the end."""
    return _by_layer(
        run, "Weights alive", "share of the dense layer",
        lambda layer: layer.weights_alive, lambda layer: layer.weights,
    )  # fmt: skip


@styled
def epoch_seconds(run: Run) -> Figure | None:
    """Training seconds of each epoch, the dense twin's beside them, compactions marked."""
    axes = panel("Time of an epoch", "seconds spent training; triangles: the dead were removed", right=1.75)
    labels: list[Label] = []
    if run.twin is not None:
        dense = line(axes, run.twin.epochs, lambda e: e.seconds, "twin seconds", color=MUTED, linewidth=1.6)
        labels += [(y, f"dense twin {duration(y)}", MUTED) for y in dense[-1:]]
    colour = BLUE if run.prunes else MUTED
    own = line(axes, run.epochs, lambda e: e.seconds, "seconds", color=colour, linewidth=2)
    if not own:
        return None
    labels.append((own[-1], f"{'pruned' if run.prunes else 'dense'} {duration(own[-1])}", colour))
    marks = [(e.epoch, e.seconds) for e in run.epochs if e.compacted is not None and e.seconds is not None]
    if marks:
        axes.plot(
            [x for x, _ in marks], [y for _, y in marks], linestyle="none", marker="v", markersize=7,
            color=VERMILION, markeredgecolor=PAPER, gid="compactions", clip_on=False, zorder=4,
        )  # fmt: skip
    epoch_axis(axes, _all_epochs(run))
    axes.set_ylim(0, 1.12 * max([y for y, _, _ in labels] + own))
    few_ticks(axes)
    end_labels(axes, labels)
    return figure_of(axes)


@styled
def decay_values(run: Run) -> Figure | None:
    """The decay value epsilon of (9) that was used for each kind of pruning."""
    kinds = list(dict.fromkeys(kind for epoch in run.epochs for kind in epoch.epsilon))
    if not kinds:
        return None
    same: dict[tuple[float | None, ...], list[str]] = {}
    for kind in kinds:
        same.setdefault(tuple(epoch.epsilon.get(kind) for epoch in run.epochs), []).append(kind)
    names = ["all kinds" if len(group) == len(kinds) > 1 else ", ".join(group) for group in same.values()]
    right = 0.75 + 0.083 * max(map(len, names))
    axes = panel("Decay value ε", "the larger, the more dies (9)", right=right)
    labels: list[Label] = []
    for name, group, colour in zip(names, same.values(), SERIES, strict=False):
        drawn = line(axes, run.epochs, _epsilon_of(group[0]), ", ".join(group), color=colour, linewidth=1.8)
        labels.append((drawn[-1], f"{name} {drawn[-1]:.3g}".replace("-", "−"), colour))
    epoch_axis(axes, _all_epochs(run))
    few_ticks(axes)
    end_labels(axes, labels)
    return figure_of(axes)


def _epsilon_of(kind: str) -> Callable[[Epoch], float | None]:
    return lambda epoch: epoch.epsilon.get(kind)


def line(
    axes: Axes, epochs: Sequence[Epoch], value: Callable[[Epoch], float | None], name: str, **style: Any
) -> list[float]:
    """Draws the epochs where `value` is recorded, under the id `name`; returns what was drawn."""
    points = [(epoch.epoch, y) for epoch in epochs if (y := value(epoch)) is not None]
    if points:
        marker = "o" if len(points) == 1 else None
        axes.plot(
            [x for x, _ in points], [y for _, y in points], gid=name, marker=marker, markersize=4, **style
        )
    return [y for _, y in points]


def _all_epochs(run: Run) -> list[int]:
    return [e.epoch for e in (*run.epochs, *(run.twin.epochs if run.twin else ()))]


def zoom_in(axes: Axes) -> None:
    """Leaves the first, steep fifth of training below the edge where it would flatten all that follows."""
    lines = [np.asarray(line.get_ydata(), dtype=float) for line in axes.lines]
    values = np.concatenate(lines)
    values = values[np.isfinite(values)]
    later = np.concatenate([line[len(line) // 5 :] for line in lines])
    later = later[np.isfinite(later)]
    if not len(later):
        return
    low, high = float(later.min()), float(values.max())
    margin = max(0.06 * (high - low), 0.0005)
    if values.min() < low - 2 * (high - low):
        axes.text(
            0.99, 0.04, f"begins below, at {percent(float(values.min()))}", transform=axes.transAxes,
            size=8, color=MUTED, ha="right",
            bbox={"facecolor": PAPER, "linewidth": 0, "pad": 1.5},
        )  # fmt: skip
        axes.set_ylim(low - 2 * margin, high + margin)
    else:
        axes.set_ylim(float(values.min()) - margin, high + margin)


def _by_layer(
    run: Run, title: str, subtitle: str, alive: Callable[[Layer], int], built: Callable[[Layer], int]
) -> Figure | None:
    names = [layer.name for layer in run.last.layers if built(layer)] if run.last else []
    if not names or not run.prunes:
        return None
    epochs = [epoch.epoch for epoch in run.epochs]
    shares, counts = np.full((len(names), len(epochs)), np.nan), {}
    for column, epoch in enumerate(run.epochs):
        for layer in epoch.layers:
            if layer.name in names and built(layer):
                shares[names.index(layer.name), column] = alive(layer) / built(layer)
                counts[layer.name] = f"{layer.name}: {count(alive(layer))} of {count(built(layer))}"
    if len(names) > LINES:
        return _map(title, subtitle, epochs, [counts[name] for name in names], shares)
    right = 0.3 + 0.083 * max(len(text) for text in counts.values())
    axes = panel(title, subtitle, right=min(right, 2.8))
    labels: list[Label] = []
    for name, share, colour in zip(names, shares, SERIES, strict=False):
        marker = "o" if len(epochs) == 1 else None
        axes.plot(epochs, share, color=colour, linewidth=1.9, gid=name, marker=marker, markersize=4)
        labels.append((float(share[-1]), counts[name], colour))
    epoch_axis(axes, epochs)
    axes.set_ylim(0, 1.03)
    percent_axis(axes)
    end_labels(axes, labels)
    return figure_of(axes)


def _map(title: str, subtitle: str, epochs: list[int], rows: list[str], shares: np.ndarray) -> Figure:
    """One row a layer, one column an epoch, the darker the more is alive."""
    right = min(0.3 + 0.07 * max(len(row) for row in rows), 2.9)
    axes = panel(title, f"{subtitle}; dark: all, pale: none", 1.3 + 0.2 * len(rows), left=0.2, right=right)
    axes.grid(visible=False)
    span = (epochs[0] - 0.5, epochs[-1] + 0.5, len(rows) - 0.5, -0.5)
    axes.imshow(
        shares,
        aspect="auto",
        interpolation="nearest",
        cmap="Blues",
        vmin=-0.15,
        vmax=1.1,
        extent=span,
        gid="map",
    )
    axes.yaxis.set_major_locator(MaxNLocator(1))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda *_: ""))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch", size=8.5)
    for index, row in enumerate(rows):
        axes.text(epochs[-1] + 0.5, index, f"  {row}", size=8, va="center", color=INK)
    return figure_of(axes)
