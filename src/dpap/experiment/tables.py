"""Tables as plain text, for terminals, pipes and files alike."""

from collections.abc import Sequence


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they must be: the first to the left, the others to the right.

    Raises:
        ValueError: when a row has another number of cells than the head.
    """
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"a row needs {len(head)} cells, as the head has; got {len(row)}: {list(row)}")
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def quantity(value: float, unit: str) -> str:
    """A number with three figures and a prefix: 1.23 mJ."""
    for prefix, size in (("", 1.0), ("m", 1e-3), ("µ", 1e-6), ("n", 1e-9)):
        if value >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value / 1e-12:.3g} p{unit}"
