"""Spikes of one test sample, layer by layer: time to the right, a neuron a line, silenced timesteps shaded."""

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dpap.experiment.formatting import count, percent
from dpap.experiment.spikes import SILENCED, SPIKE
from dpap.report.records import SpikingLayer
from dpap.report.style import BLUE, GOLD, MUTED, WIDTH, figure_of, panel, styled


@styled
def raster(layer: SpikingLayer) -> Figure | None:
    """A tick for every spike; a pale bar where a neuron may not fire."""
    steps = max((len(row) for row in layer.rows.values()), default=0)
    if not steps:
        return None
    height = 1.25 + 0.085 * max(len(layer.rows), 6)
    silenced = f"; shaded: silenced ({percent(layer.silenced)} of the layer)" if layer.silenced else ""
    axes = panel(
        f"Spikes of {layer.name}", f"a line a neuron, blue: spikes{silenced}", height, left=0.5, right=0.2
    )
    axes.grid(visible=False)
    width = (WIDTH - 0.7) / steps  # inches of a timestep
    for place, text in enumerate(layer.rows.values()):
        dead = [step for step, state in enumerate(text) if state == SILENCED]
        fired = [step for step, state in enumerate(text) if state == SPIKE]
        axes.broken_barh(
            [(step + 0.5, 1.0) for step in dead], (place - 0.42, 0.84), facecolor=GOLD, alpha=0.28, linewidth=0,
            gid="silenced",
        )  # fmt: skip
        axes.vlines(
            [step + 1 for step in fired], place - 0.36, place + 0.36, color=BLUE,
            linewidth=min(4.0, 72 * 0.6 * width), gid="spikes",
        )  # fmt: skip
    axes.set_xlim(0.5, steps + 0.5)
    axes.set_ylim(len(layer.rows) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.set_yticks([])
    axes.set_xlabel("timestep", size=9.3)
    axes.set_ylabel("neurons", size=9.3, color=MUTED)
    return figure_of(axes)


def caption(layer: SpikingLayer) -> str:
    """How many neurons are drawn, and how much fired."""
    shown = len(layer.rows)
    drawn = (
        f"all {shown} units"
        if shown == layer.units
        else f"{shown} of {count(layer.units)} units, evenly spread"
    )
    place = ", of each the neuron that fired most" if layer.neurons > layer.units else ""
    return f"Drawn: {drawn}{place}. In all {count(layer.neurons)} neurons, {count(layer.spikes)} spikes of this sample."
