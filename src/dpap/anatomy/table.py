"""The wiring as a table: as wide as the terminal, layers of one shape in one row where there are many."""

import re
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

HEAD = ("layer", "kind", "units", "features", "weights", "fed by", "seen at", "prunable")
NUMBERS = (2, 3, 4)
"""Columns of numbers."""
LAYER, SOURCES, SEEN = 0, 5, 6
"""Columns of names."""
SHORT, SHORTEST = 16, 8
"""Characters that are left of names in one column while those of another can be shortened, and at last."""
NARROWEST = 80
"""Characters a line below which nothing is shortened further."""
LINES = 20
"""Rows above which layers of one shape share one."""
NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Row:
    """One layer of the table.

    Attributes:
        name: of the layer.
        kind: of the layer.
        sizes: units and features.
        weights: number of weights, or "" where that means nothing.
        sources: what feeds it, one or more.
        seen: where the activity of its units is seen.
        verdict: whether it is prunable, in few words.
        reason: why it is not, or on what condition, or "".
    """

    name: str
    kind: str
    sizes: tuple[int, int]
    weights: int
    sources: tuple[str, ...]
    seen: str
    verdict: str
    reason: str

    @property
    def shape(self) -> tuple[object, ...]:
        """What layers of one row have in common: numbers in names apart, everything."""
        return (
            *(pattern(self.name), self.kind, self.sizes, self.weights),
            *(pattern(self.seen), self.verdict, pattern(self.reason)),
        )


def pattern(name: str) -> str:
    """A name without its numbers."""
    return NUMBER.sub("#", name)


def together(names: Sequence[str]) -> str:
    """Names that differ in numbers only, as one.

    Example:
        >>> from dpap.anatomy.table import together
        >>> together(["block1.fc", "block2.fc", "block3.fc", "block7.fc"])
        'block{1-3,7}.fc'
    """
    if len(set(names)) == 1:
        return names[0]
    parts = NUMBER.split(names[0])
    columns = zip(*(map(int, NUMBER.findall(name)) for name in names), strict=True)
    numbers = [_ranges(sorted(set(column))) for column in columns]
    return parts[0] + "".join(number + part for number, part in zip(numbers, parts[1:], strict=True))


def _ranges(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return str(numbers[0])
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    shown = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    if len(shown) > 4:
        shown = [*shown[:2], "..", shown[-1]]
    return "{" + ",".join(shown) + "}"


def grouped(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of one shape together, each group where its first row was; each on its own where there are few."""
    if len(rows) <= LINES:
        return [[row] for row in rows]
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.shape, []).append(row)
    return list(groups.values())


def _sources(group: list[Row], full: bool) -> str:
    """What feeds a group: all of it, or the first source of each layer and how many others there are."""
    if full and len(group) == 1:
        return ", ".join(group[0].sources)
    first = [row.sources[0] for row in group]
    alike = len(set(map(pattern, first))) == 1
    one = together(first) if alike else first[0]
    others = [len(row.sources) - 1 for row in group]
    if max(others) == 0:
        return one if alike else f"{one}, .."
    return f"{one} + {max(others)}" if min(others) == max(others) else f"{one} + {min(others)}-{max(others)}"


def _cells(group: list[Row], full: bool) -> list[str]:
    first = group[0]
    times = "" if len(group) == 1 else f"{len(group)} x "
    return [
        together([row.name for row in group]),
        first.kind,
        *(f"{size:,}" for size in first.sizes),
        f"{times}{first.weights:,}",
        _sources(group, full),
        together([row.seen for row in group]),
    ]


def shortened(name: str, width: int) -> str:
    """A name of at most so many characters: its middle is left out, never how many others there are.

    Example:
        >>> from dpap.anatomy.table import shortened
        >>> shortened("backbone.stages.3.blocks.11.mlp.fc1", 20)
        'backbo…ks.11.mlp.fc1'
        >>> shortened("backbone.stages.3.blocks.11.mlp.fc1 + 12", 20)
        'back…11.mlp.fc1 + 12'
    """
    if len(name) <= width:
        return name
    name, plus, others = name.partition(" + ")
    left = max(width - len(plus + others), 3)
    head = (left - 1) // 3
    return f"{name[:head]}…{name[len(name) - (left - 1 - head) :]}{plus}{others}"


def as_text(rows: Sequence[Row], total: str, width: int | None = None) -> str:
    """The table as lines of text.

    What is too wide leaves in this order: all sources but the first, reasons (they follow as notes), the column of
    neurons, the middle of names.

    Args:
        rows: the layers.
        total: the last line.
        width: characters a line, exceeded only where numbers alone need more; the terminal's if None.
    """
    if width is None:
        width = shutil.get_terminal_size((100, LINES)).columns
    width = max(width, NARROWEST)
    groups = grouped(rows)
    reasons = [together([row.reason for row in group]) for group in groups]
    notes: dict[str, int] = {}
    for full in (True, False):
        lines = [
            [*_cells(group, full), verdict(group[0].verdict, reason)]
            for group, reason in zip(groups, reasons, strict=True)
        ]
        lines.insert(0, list(HEAD))
        if _width(lines) <= width:
            break
    else:
        notes = {reason: number for number, reason in enumerate(dict.fromkeys(filter(None, reasons)), 1)}
        for line, group, reason in zip(lines[1:], groups, reasons, strict=True):
            line[-1] = f"{group[0].verdict} [{notes[reason]}]" if reason else group[0].verdict
        _fit(lines, width)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = ["  ".join(cell.ljust(size) for cell, size in zip(line, widths, strict=True)) for line in lines]
    shown.insert(1, "  ".join("-" * size for size in widths))
    for note in (*(f"[{number}] {reason}" for reason, number in notes.items()), total):
        shown += textwrap.wrap(note, width, subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(line.rstrip() for line in shown)


def verdict(short: str, reason: str) -> str:
    """Whether a layer is prunable, with the reason."""
    return f"{short}: {reason}" if reason else short


def _width(lines: list[list[str]]) -> int:
    return sum(max(map(len, column)) + 2 for column in zip(*lines, strict=True)) - 2


def _fit(lines: list[list[str]], width: int) -> None:
    """Leave out where neurons are seen, then shorten names, until the lines are no longer than the width."""
    if _width(lines) > width:
        for line in lines:
            del line[SEEN]
    for shortest in (SHORT, SHORTEST):
        for column in (SOURCES, LAYER):
            excess = _width(lines) - width
            if excess > 0:
                longest = max(len(line[column]) for line in lines)
                for line in lines:
                    line[column] = shortened(line[column], max(longest - excess, shortest))


def as_html(rows: Sequence[Row], total: str) -> str:
    """The table for a notebook: nothing shortened, and the layers of a group in the row's tooltip."""
    body = []
    for group in grouped(rows):
        cells = [*_cells(group, True), verdict(group[0].verdict, together([row.reason for row in group]))]
        shown = "".join(
            f'<td style="text-align: {"right" if place in NUMBERS else "left"}">{escape(cell)}</td>'
            for place, cell in enumerate(cells)
        )
        body.append(f'<tr title="{escape(", ".join(row.name for row in group))}">{shown}</tr>')
    head = "".join(f"<th>{escape(name)}</th>" for name in HEAD)
    foot = f'<tr><td colspan="{len(HEAD)}" style="text-align: left">{escape(total)}</td></tr>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody><tfoot>{foot}</tfoot></table>"
