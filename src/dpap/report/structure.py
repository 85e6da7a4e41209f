"""The network before and after, drawn to scale: a row a layer, as wide as it has units."""

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dpap.experiment.formatting import count, percent
from dpap.report.records import Layer, Run
from dpap.report.style import BLUE, GRID, INK, MUTED, WIDTH, figure_of, panel, styled

ACROSS = 50
"""Cells in a line of `unit_map`."""
CELLS = 4000
"""Units above which cells would be too small to see, or the page too heavy."""


@dataclass(frozen=True)
class Row(Layer):
    """A layer, dense and at the end; `stored` counts its weights in the compact network."""

    stored: int | None


def rows(run: Run) -> list[Row]:
    """Every layer after the epoch that is reported; of a dense run, from its summary."""
    before, after = (run.summary.before, run.summary.after) if run.summary else (None, None)
    if before is not None and not run.prunes:
        sizes = [(layer.name, layer.units or 0, layer.weights or 0) for layer in before.layers]
        return [Row(name, "", units, units, weights, weights, 1.0, None) for name, units, weights in sizes]
    stored = {layer.name: layer.weights for layer in after.layers} if after else {}
    layers = run.reported.layers if run.reported else ()
    return [Row(**vars(layer), stored=stored.get(layer.name)) for layer in layers]


@styled
def network(run: Run) -> Figure | None:
    """Bars as wide as the layers: pale dense, solid what is alive; the first layer on top."""
    layers = rows(run)
    if not layers:
        return None
    left = 0.3 + 0.08 * max(len(layer.name) for layer in layers)
    subtitle = "units of each layer, to scale; pale: dense, solid: alive" if run.prunes else "units, to scale"
    axes = panel(
        "The network", subtitle, 0.8 + 0.36 * len(layers), left=min(left, 1.9), right=1.55, below=0.14
    )
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
    widest = max(layer.units for layer in layers)
    axes.set_xlim(-widest / 2, widest / 2)
    axes.set_ylim(len(layers) - 0.5, -0.5)
    for index, layer in enumerate(layers):
        for units, colour, role in ((layer.units, GRID, "built"), (layer.alive, BLUE, "alive")):
            bar = Rectangle((-units / 2, index - 0.31), units, 0.62, facecolor=colour, linewidth=0)
            bar.set_gid(f"{role} {layer.name}")
            axes.add_patch(bar)
        _name_row(axes, index, layer.name)
        kept = (
            f"{count(layer.units)} → {count(layer.alive)}"
            if layer.alive < layer.units
            else count(layer.units)
        )
        share = f", {percent(layer.alive / layer.units, 0)}" if layer.alive < layer.units else ""
        axes.text(
            1.04, index, kept + share, va="center", transform=axes.get_yaxis_transform(), size=9,
            color=BLUE if share else MUTED,
        )  # fmt: skip
    return figure_of(axes)


@styled
def unit_map(run: Run) -> Figure | None:
    """Every unit of every layer as a cell, in its original order: solid where it is alive."""
    records = [r.layers for r in run.survival if run.reported is None or r.epoch <= run.reported.epoch]
    layers = {name: values for name, values in records[-1].items() if values} if records else {}
    if not layers or sum(map(len, layers.values())) > CELLS:
        return None
    left, right, below = min(0.3 + 0.08 * max(map(len, layers)), 1.9), 0.15, 0.14
    cell = (WIDTH - left - right) / ACROSS
    lines = sum(-(-len(values) // ACROSS) for values in layers.values()) + 0.8 * (len(layers) - 1)
    axes = panel("Alive units", "every unit a cell, in its original order; solid: alive", 0.8 + lines * cell,
                 left=left, right=right, below=below)  # fmt: skip
    axes.set_axis_off()
    axes.set_xlim(-0.5, ACROSS - 0.5)
    axes.set_ylim(lines - 0.5, -0.5)
    top = 0.0
    for name, values in layers.items():
        _name_row(axes, top, name)
        for alive, colour, role in ((False, GRID, "dead"), (True, BLUE, "alive")):
            units = [unit for unit, value in enumerate(values) if (value is not None) == alive]
            axes.plot(
                [unit % ACROSS for unit in units], [top + unit // ACROSS for unit in units], linestyle="none",
                marker="s", markersize=0.8 * 72 * cell, markeredgewidth=0, color=colour, gid=f"{role} {name}",
                clip_on=False,
            )  # fmt: skip
        top += -(-len(values) // ACROSS) + 0.8
    return figure_of(axes)


def _name_row(axes: Axes, y: int | float, name: str) -> None:
    axes.text(
        -0.02, y, name, ha="right", va="center", transform=axes.get_yaxis_transform(), color=INK, size=9
    )
