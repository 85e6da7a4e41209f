"""The look that all figures share: palette, axes without junk, labels at the ends of lines."""

import functools
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import matplotlib
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dpap.experiment.run_folder import REPORT_MARK

# Role -> colour on light and on dark paper. After Okabe and Ito (2008), darkened or lightened until each
# also reads as text (contrast at least 4.5 to its paper).
PALETTE: dict[str, tuple[str, str]] = {
    "ink": ("#1c2128", "#e6e9ed"),
    "muted": ("#5a6370", "#a5afba"),
    "grid": ("#dfe3e8", "#363d47"),
    "paper": ("#fffffe", "#1a1f26"),
    "blue": ("#0069a8", "#58b4f5"),
    "vermilion": ("#bf4a00", "#ff8f52"),
    "green": ("#007a5a", "#3ecfa4"),
    "purple": ("#98447e", "#e79bcb"),
    "gold": ("#8f6100", "#eeb33b"),
}
INK, MUTED, GRID, PAPER, BLUE, VERMILION, GREEN, PURPLE, GOLD = (light for light, _ in PALETTE.values())
SERIES = (BLUE, VERMILION, GREEN, PURPLE, GOLD, INK)
WIDTH = 5.2
"""Inches; narrow, so that a figure reads on a phone and two stand side by side on a screen."""

_RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.color": INK,
    "axes.unicode_minus": True,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "savefig.facecolor": PAPER,
    "savefig.bbox": None,
    "svg.fonttype": "none",
    "svg.hashsalt": "dpap",
    "text.parse_math": False,  # a name with dollars is a name
}

P = ParamSpec("P")
Drawn = TypeVar("Drawn", bound=Figure | None)


def styled(draw: Callable[P, Drawn]) -> Callable[P, Drawn]:
    """`draw` under the shared style, whatever stands in the user's matplotlibrc."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Drawn:
        with matplotlib.rc_context(_RC):
            return draw(*args, **kwargs)

    return wrapper


def panel(
    title: str,
    subtitle: str,
    height: float = 3.2,
    left: float = 0.55,
    right: float = 1.45,
    below: float = 0.5,
) -> Axes:
    """Axes in a new figure, with room (inches) for ticks on the left and below, and line labels on the right."""
    figure = Figure(figsize=(WIDTH, height))
    above = 0.66
    axes = figure.add_axes(
        (left / WIDTH, below / height, (WIDTH - left - right) / WIDTH, (height - below - above) / height)
    )
    figure.text(0.1 / WIDTH, 1 - 0.1 / height, title, size=11.5, weight="bold", va="top", gid="title")
    figure.text(0.1 / WIDTH, 1 - 0.33 / height, subtitle, size=9.3, color=MUTED, va="top")
    _without_junk(axes)
    return axes


def halves(axes: Axes, gap: float = 0.22) -> tuple[Axes, Axes]:
    """The axes of a panel narrowed to the left half of their place, and others in the right half with the same y."""
    left, bottom, width, height = axes.get_position().bounds
    each = (width - gap / WIDTH) / 2
    axes.set_position((left, bottom, each, height))
    other = figure_of(axes).add_axes((left + width - each, bottom, each, height), sharey=axes)
    _without_junk(other)
    other.tick_params(labelleft=False)
    return axes, other


def _without_junk(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(length=0, pad=4, labelsize=9.3)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def figure_of(axes: Axes) -> Figure:
    """The figure that `panel` made."""
    figure = axes.get_figure()
    if not isinstance(figure, Figure):
        raise ValueError("expected axes of a figure, got axes of none; make them with panel()")
    return figure


def epoch_axis(axes: Axes, epochs: Sequence[int]) -> None:
    """Whole epochs along x, from the first to the last."""
    first, last = min(epochs), max(epochs)
    margin = max(0.3, 0.015 * (last - first))
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch", size=9.3)


def few_ticks(axes: Axes) -> None:
    """About five round numbers along y."""
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def percent_axis(axes: Axes) -> None:
    """Shares in [0, 1] written as percent, with as many decimals as the ticks need."""
    low, high = axes.get_ylim()
    decimals = 0 if high - low > 0.04 else 1 if high - low > 0.004 else 2
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.{decimals}f}%"))


Label = tuple[float, str, str]
"""y, text and colour of what stands at the end of a line."""


def end_labels(axes: Axes, labels: Sequence[Label]) -> None:
    """Writes (y, text, colour) at the right edge, moved apart just far enough not to overlap."""
    labels = sorted(labels, key=lambda label: label[0])
    height = figure_of(axes).get_figheight() * axes.get_position().height
    gap = 0.18 / height
    wanted = [
        float(axes.transAxes.inverted().transform(axes.transData.transform((0, y)))[1]) for y, _, _ in labels
    ]
    for start, place, (_, text, colour) in zip(wanted, spread(wanted, gap), labels, strict=True):
        axes.plot(
            [1.0, 1.02, 1.04], [start, place, place], transform=axes.transAxes, color=colour,
            linewidth=0.7, clip_on=False, scalex=False, scaley=False, gid="leader",
        )  # fmt: skip
        axes.text(1.05, place, text, transform=axes.transAxes, color=colour, size=9.3, va="center_baseline")


def spread(wanted: Sequence[float], gap: float, high: float = 1.05) -> list[float]:
    """Places at least `gap` apart for ascending `wanted`, as near to them as least squares allow."""
    pools: list[list[float]] = []
    for index, y in enumerate(wanted):
        pools.append([y - index * gap, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, count = pools.pop()
            pools[-1] = [
                (pools[-1][0] * pools[-1][1] + mean * count) / (pools[-1][1] + count),
                pools[-1][1] + count,
            ]
    places = [mean for mean, count in pools for _ in range(int(count))]
    places = [place + index * gap for index, place in enumerate(places)]
    over = max(0.0, places[-1] - max(high, wanted[-1])) if places else 0.0
    return [place - over for place in places] if over else places


def as_png(figure: Figure) -> bytes:
    """The figure on light paper, for documents."""
    return _save(figure, format="png", dpi=200, metadata={"Software": REPORT_MARK})


def as_svg(figure: Figure) -> str:
    """The figure as an <svg> element with the page's CSS variables as colours, so that it follows its theme."""
    text = _save(figure, format="svg", transparent=True, metadata={"Date": None}).decode("utf-8")
    for role, (light, _) in PALETTE.items():
        text = text.replace(light, f"var(--{role})")
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # several figures stand on one page
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(_in_words(figure))}" ', 1)


def _in_words(figure: Figure) -> str:
    """What a figure says in text, for those who do not see it: title, subtitle, and the labels with their numbers."""
    heading = ": ".join(text.get_text() for text in figure.texts)
    labels = "; ".join(text.get_text().strip() for axes in figure.axes for text in axes.texts)
    return f"{heading}. {labels}" if labels else heading


def _save(figure: Figure, **how: Any) -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context(_RC):
        figure.savefig(buffer, **how)
    return buffer.getvalue()
