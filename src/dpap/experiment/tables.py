"""Tables as plain text, for terminals, pipes and files alike, and as Markdown."""

from collections.abc import Sequence

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from rich.text import Text

UNLIMITED = 1_000_000
"""Columns of the console: whatever the terminal's width, no cell is wrapped or cut."""


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their cells need: the first to the left, the others to the right.

    Raises:
        ValueError: when a row has another number of cells than the head.
    """
    return "\n".join(_lines(head, rows, edges=False))


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as a Markdown table.

    Raises:
        ValueError: when a row has another number of cells than the head.
    """
    _, names, rule, *lines = _lines(head, rows, edges=True)
    first, *others = (cell[1:-1] for cell in rule.strip("|").split("|"))
    rule = " | ".join([first, *(f"{cell[:-1]}:" for cell in others)])
    return "\n".join([names, f"| {rule} |", *lines[:-1]])


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]], edges: bool) -> list[str]:
    table = Table(box=MARKDOWN, show_edge=edges, pad_edge=edges)
    for place, name in enumerate(head):
        table.add_column(Text(name), justify="right" if place else "left", no_wrap=True, min_width=2)
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"a row needs {len(head)} cells, as the head has; got {len(row)}: {list(row)}")
        table.add_row(*map(Text, row))
    # segments instead of print: text without the control characters of styles, whatever the terminal
    text = "".join(segment.text for segment in Console(width=UNLIMITED).render(table))
    return [line.rstrip() for line in text.splitlines()]
