"""Draws docs/pictures/how_it_works.svg: one epoch of a network that is pruned while it learns.

python docs/pictures/how_it_works.py
"""

from pathlib import Path
from typing import NamedTuple

WIDTH, HEIGHT = 760, 430
INK, PALE, TEAL, WARM = "#1f2d2b", "#eef5f3", "#00796b", "#b3541e"


class Box(NamedTuple):
    """A step: its corner, a title and lines beneath it."""

    x: int
    y: int
    title: str
    lines: tuple[str, ...]
    colour: str = TEAL


SIZE = (212, 104)
BOXES = (
    Box(20, 62, "1 Training", ("your own loop, unchanged:", "forward, backward,", "optimizer step")),
    Box(
        274,
        62,
        "2 Observation",
        ("contributions to the loss,", "w dL/dw, from the gradients;", "or activity, by the paper's rule"),
    ),
    Box(
        528,
        62,
        "3 Importance",
        ("of units, synapses, timesteps;", "for what a death saves,", "ranked over the network"),
    ),
    Box(
        528,
        246,
        "4 Survival",
        ("twice the importance", "less a decay value, shifted", "so that as much dies as is due"),
    ),
    Box(
        274,
        246,
        "5 Death",
        ("what falls below zero: its", "weights and moments are zero", "after every step, for good"),
        WARM,
    ),
    Box(
        20,
        246,
        "6 Removal",
        ("compact(): checked in double", "precision, or put back;", "tensors shrink in place"),
        WARM,
    ),
)
ARROWS = (
    ((232, 114), (274, 114)),
    ((486, 114), (528, 114)),
    ((634, 166), (634, 246)),
    ((528, 298), (486, 298)),
    ((274, 298), (232, 298)),
    ((126, 246), (126, 166)),
)
LABELS = (
    (640, 200, "start", "ten times"),
    (640, 217, "start", "an epoch"),
    (132, 200, "start", "the next steps are"),
    (132, 217, "start", "smaller and faster"),
)


def picture() -> str:
    """The picture as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="Helvetica, Arial, sans-serif">',
        "<title>How a network is pruned while it learns</title>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{INK}"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="white"/>',
        _text(20, 36, "While it learns", 20, weight="bold"),
        _text(
            20,
            384,
            "Units die whole in every layer, single synapses in fully connected ones, neuron-timesteps in",
            14,
        ),
        _text(20, 404, "spiking neurons. What is left is an ordinary, smaller PyTorch network.", 14),
    ]
    for box in BOXES:
        parts.append(
            f'<rect x="{box.x}" y="{box.y}" width="{SIZE[0]}" height="{SIZE[1]}" rx="8" fill="{PALE}" '
            f'stroke="{box.colour}" stroke-width="2"/>'
        )
        parts.append(_text(box.x + 12, box.y + 26, box.title, 17, box.colour, "bold"))
        parts += [_text(box.x + 12, box.y + 50 + 19 * row, line, 14) for row, line in enumerate(box.lines)]
    for (x1, y1), (x2, y2) in ARROWS:
        parts.append(
            f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{INK}" stroke-width="2" marker-end="url(#head)"/>'
        )
    parts += [_text(x, y, text, 13, anchor=anchor) for x, y, anchor, text in LABELS]
    return "\n".join([*parts, "</svg>", ""])


def _text(
    x: int, y: int, text: str, size: int, colour: str = INK, weight: str = "normal", anchor: str = "start"
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" font-weight="{weight}" text-anchor="{anchor}">'
        f"{text}</text>"
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(picture(), encoding="utf-8")
