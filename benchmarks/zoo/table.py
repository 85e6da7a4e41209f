"""The zoo's table in docs/networks.md, from what was measured alone."""

from collections import Counter
from pathlib import Path
from typing import Any

Row = dict[str, Any]
PAGE = Path(__file__).parents[2] / "docs" / "networks.md"
BEGIN, END = "<!-- zoo: begin -->", "<!-- zoo: end -->"
COLUMNS = (
    "network", "verdict", "prunable weights", "parameters", "at 50%", "MACs", "at 50%", "largest difference",
    "wiring", "forwards (staining)",
)  # fmt: skip
LONGEST = 220
"""Characters of a reason."""


def write_table(rows: list[Row]) -> str:
    """Put the table between its marks on the page; returns the line that sums up."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"| --- | --- |{' ---: |' * (len(COLUMNS) - 2)}"]
    lines += [f"| {' | '.join(cells(row))} |" for row in rows]
    total = summary(rows)
    block = "\n".join([BEGIN, "", total, "", *lines, "", END])
    text = PAGE.read_text()
    if BEGIN in text:
        text = text[: text.index(BEGIN)] + block + text[text.index(END) + len(END) :]
    else:
        text = f"{text.rstrip()}\n\n## The zoo\n\n{block}\n"
    PAGE.write_text(text)
    return total


def cells(row: Row) -> list[str]:
    """One line of the table; what was not measured is empty."""
    reason = " ".join(row["reason"].split()).replace("|", "/").replace("<", "&lt;")
    verdict = row["verdict"] if row["verdict"] == "ok" else f"**{row['verdict']}**"
    if reason:
        verdict += f": {reason[:LONGEST]}"
    found = [row["network"], verdict, f"{row['prunable']:.1%}" if "prunable" in row else ""]
    for key in ("parameters", "parameters_after", "macs", "macs_after"):
        found.append(rounded(row[key]) if key in row else "")
    single = " (single)" if row.get("precision") == "single" else ""
    found.append(f"{row['difference']:.0e}{single}".replace("0e+00", "0") if "difference" in row else "")
    found.append(f"{row['wiring_seconds']:.1f} s" if "wiring_seconds" in row else "")
    staining = f" ({row['staining_forwards']:,})" if "staining_forwards" in row else ""
    found.append(f"{row['forwards']:,}{staining}" if "forwards" in row else "")
    return found


def rounded(number: int) -> str:
    """Thousands, or millions where there are any."""
    return f"{number / 1e6:,.2f} M" if number >= 1e6 else f"{number / 1e3:,.1f} k"


def summary(rows: list[Row]) -> str:
    """How many of each verdict, with which versions and on which machine."""
    counts = Counter(row["verdict"] for row in rows)
    versions = {
        f"{row['library']} {row['version']}" for row in rows if row["version"] and row["library"] != "torch"
    }
    machines = ", ".join(sorted({row["cpu"] for row in rows}))
    states = len({row["code"] for row in rows})
    return (
        f"{len(rows)} networks: {', '.join(f'{number} {verdict}' for verdict, number in counts.most_common())}. "
        f"Untrained, small, two samples; seconds are of one processor ({machines}), torch "
        f"{', '.join(sorted({row['torch'] for row in rows}))}, {', '.join(sorted(versions))}"
        + (f"; measured with {states} states of this code." if states > 1 else ".")
    )
