import itertools

import matplotlib
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from dpap.report.style import PALETTE, as_png, as_svg, end_labels, panel, spread, styled


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12).map(sorted))
def test_labels_never_overlap_and_keep_their_order(wanted: list[float]) -> None:
    places = spread(wanted, gap=0.06)
    assert all(b - a >= 0.06 - 1e-9 for a, b in itertools.pairwise(places))
    assert max(places) <= max(1.05, *wanted, 0.0) + 1e-9


def test_labels_with_room_stay_where_they_are() -> None:
    assert spread([0.1, 0.5, 0.9], gap=0.1) == pytest.approx([0.1, 0.5, 0.9])


@styled
def _figure() -> Figure:
    axes = panel("A <title>", "below")
    axes.plot([1, 2], [0.2, 0.8], color=PALETTE["blue"][0])
    end_labels(axes, [(0.8, "end", PALETTE["blue"][0])])
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    return figure


def test_svg_follows_the_theme_and_repeats_itself() -> None:
    svg = as_svg(_figure())
    assert svg.startswith("<svg ") and svg == as_svg(_figure())
    assert "var(--blue)" in svg and not any(light in svg for light, _ in PALETTE.values())
    assert "A &lt;title&gt;" in svg and "metadata" not in svg
    assert 'role="img" aria-label="A &lt;title&gt;: below. end"' in svg
    assert as_png(_figure()).startswith(b"\x89PNG")


def test_the_users_settings_are_left_as_they_were() -> None:
    with matplotlib.rc_context({"font.size": 33, "svg.hashsalt": "mine"}):
        _figure()
        assert matplotlib.rcParams["font.size"] == 33 and matplotlib.rcParams["svg.hashsalt"] == "mine"


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("role", [role for role in PALETTE if role not in ("grid", "paper")])
def test_every_colour_reads_as_text(role: str, theme: int) -> None:
    pair = sorted((_luminance(PALETTE[role][theme]), _luminance(PALETTE["paper"][theme])))
    assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5
