"""Survival functions of dead and of alive units, as the paper's Fig. 3d and 3e."""

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from dpap.report.records import Run
from dpap.report.style import (
    BLUE,
    INK,
    PAPER,
    VERMILION,
    end_labels,
    epoch_axis,
    few_ticks,
    figure_of,
    panel,
    styled,
)

SHOWN = 12
"""Dead and alive units that are drawn, of each; more would hide each other."""

LINEAR = 8.0
"""Largest F that is drawn on a linear scale: above, units that die would lie flat on the zero line."""
SUBTITLE = "survival function F of (11); crosses: deaths"


@dataclass(frozen=True)
class UnitHistory:
    """One unit: the epochs after which it was alive, its survival function then, and the epoch of its death."""

    unit: int
    epochs: list[int]
    values: list[float]
    died: int | None


def unit_histories(run: Run, layer: str) -> list[UnitHistory]:
    """Every unit of `layer`, by its original number."""
    recorded = [(record.epoch, record.layers[layer]) for record in run.survival if layer in record.layers]
    units = max((len(values) for _, values in recorded), default=0)
    found = []
    for unit in range(units):
        points = [(epoch, values[unit] if unit < len(values) else None) for epoch, values in recorded]
        alive = [(epoch, value) for epoch, value in points if value is not None]
        died = next((epoch for epoch, value in points if value is None), None)
        found.append(UnitHistory(unit, [epoch for epoch, _ in alive], [value for _, value in alive], died))
    return found


@styled
def survival_functions(run: Run, layer: str) -> Figure | None:
    """F over epochs for a spread of the dead and of the alive units of `layer`; a cross where a unit died."""
    units = unit_histories(run, layer)
    if not units:
        return None
    dead = sorted((u for u in units if u.died is not None), key=lambda u: (u.died or 0, u.unit))
    alive = sorted((u for u in units if u.died is None), key=lambda u: (u.values[-1], u.unit))
    shown_dead, shown_alive = _spread_over(dead), _spread_over(alive)
    heights = [value for unit in (*shown_alive, *shown_dead) for value in unit.values]
    logarithmic = max([*heights, 1.0]) > LINEAR
    subtitle = SUBTITLE.replace(";", ", logarithmic above 1;") if logarithmic else SUBTITLE
    axes = panel(f"Survival in {layer}", subtitle, left=0.5, right=1.5)
    for unit in shown_alive:
        axes.plot(
            unit.epochs, unit.values, color=BLUE, linewidth=1.1, alpha=0.75, gid=f"unit {unit.unit}",
            marker="o" if len(unit.epochs) == 1 else None, markersize=3,
        )  # fmt: skip
    for unit in shown_dead:
        end = unit.died or 0
        axes.plot(
            [*unit.epochs, end], [*unit.values, min([*unit.values[-1:], 0.0])], color=VERMILION,
            linewidth=1.1, alpha=0.75, gid=f"unit {unit.unit}",
        )  # fmt: skip
    axes.plot(
        [u.died or 0 for u in shown_dead], [min([*u.values[-1:], 0.0]) for u in shown_dead], linestyle="none",
        marker="X", markersize=6.5, color=VERMILION, markeredgecolor=PAPER, markeredgewidth=0.7, zorder=4,
        clip_on=False, gid="deaths",
    )  # fmt: skip
    axes.axhline(0, color=INK, linewidth=1.1, gid="zero", zorder=3)
    epoch_axis(axes, [record.epoch for record in run.survival])
    _scale(axes, heights)
    # The label of the alive units stands at their middle, that of the dead on the zero line.
    labels = [(0.0, _how_many(dead, "dead", shown_dead), VERMILION)] if dead else []
    if alive:
        middle = shown_alive[len(shown_alive) // 2].values[-1]
        labels.append((middle, _how_many(alive, "alive", shown_alive), BLUE))
    end_labels(axes, labels)
    return figure_of(axes)


def _spread_over(units: list[UnitHistory]) -> list[UnitHistory]:
    if len(units) <= SHOWN:
        return units
    return [units[round(i * (len(units) - 1) / (SHOWN - 1))] for i in range(SHOWN)]


def _how_many(units: list[UnitHistory], state: str, shown: list[UnitHistory]) -> str:
    return f"{len(units)} {state}" + (f", {len(shown)} drawn" if len(shown) < len(units) else "")


def _scale(axes: Axes, values: list[float]) -> None:
    """Logarithmic above 1 where protected units lie far above those that die, linear otherwise."""
    low, high = min([*values, 0.0]), max([*values, 1.0])
    if high > LINEAR:
        axes.set_yscale("symlog", linthresh=1.0, linscale=1.3)
        ticks = [0.0, 1.0, *(step * 10**power for power in range(7) for step in (3, 10))]
        axes.set_yticks([tick for tick in ticks if tick <= 1.3 * high])
        axes.minorticks_off()
        axes.set_ylim(1.6 * low - 0.25, 1.3 * high)
    else:
        few_ticks(axes)
        axes.set_ylim(low - 0.06 * (high - low), high + 0.05 * (high - low))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
