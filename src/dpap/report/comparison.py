"""The report of a comparison: tables and figures on one HTML page, the figures as PNG files beside it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from dpap.experiment.comparing.comparison_table import HEAD, LEGEND, cells, description
from dpap.experiment.comparing.grid import target_words
from dpap.experiment.comparing.results import EpochResult, read_results
from dpap.experiment.comparing.significance import Group, groups
from dpap.files import write_text
from dpap.report import comparison_figures as figures
from dpap.report.page import Plate, drawable, plate, template
from dpap.report.style import PALETTE

NBSP = "\N{NO-BREAK SPACE}"
IN_FULL = {
    "syn. ops": "synaptic operations", "energy": "energy, (14), (15)", "counted": "energy, counted",
    "training": "training, of dense",
}  # fmt: skip
"""Names of columns that are short in the terminal."""


@dataclass(frozen=True)
class Chapter:
    """One recipe on the page."""

    name: str
    description: Markup
    table: list[list[str]]
    plates: list[Plate]


def write_comparison(folder: Path) -> Path:
    """Writes FOLDER/report/index.html and its figures from results.csv and epochs.csv; returns the page's path.

    Raises:
        UserError: a table is not there, or not one that `dpap compare` writes.
    """
    results, epochs = read_results(folder)
    report = folder / "report"
    report.mkdir(exist_ok=True)
    chapters = []
    with drawable(folder):
        for recipe, table in groups(results).items():
            plates = []
            for name, figure, caption in _drawn(table, [each for each in epochs if each.recipe == recipe]):
                plates.append(
                    plate(report, f"{re.sub(r'[^A-Za-z0-9_]+', '-', recipe)}-{name}", figure, caption)
                )
            chapters.append(Chapter(recipe, _code(description(table)), _plain(cells(table)), plates))
    page = report / "index.html"
    text = template("comparison.html.j2").render(
        name=folder.resolve().name,
        head=[IN_FULL.get(name, name).replace(" %", f"{NBSP}%") for name in HEAD],
        chapters=chapters,
        legend=LEGEND.replace("\\*", "*"),
        palette=PALETTE,
        runs=len(results),
    )
    write_text(page, text)
    return page


def _drawn(table: list[Group], epochs: list[EpochResult]) -> Iterator[tuple[str, Figure, str]]:
    """(file name, figure, caption) of every figure that a recipe's results allow."""
    candidates: list[tuple[str, Figure | None, str]] = [
        ("size", figures.accuracy_by_size(table), "Logarithmic; parameters as stored, MACs of one sample."),
        ("accuracy", figures.accuracies(table, epochs), "As the paper’s Fig. 2d to 2h."),
        ("pruning", figures.accuracy_by_pruning(table), "As the paper’s Fig. 2i to 2m; logarithmic."),
        ("convergence", figures.convergence(table), "As the paper’s Fig. 2b."),
        ("weights", figures.weights_alive(table, epochs), "As the paper’s Fig. 3f."),
    ]
    for target in dict.fromkeys(group.target for group in table if group.to_dense is not None):
        name = "differences" + target_words(*target, "-")
        candidates.append((name, figures.differences(table, target), "As the paper’s Fig. 3g."))
    for name, figure, caption in candidates:
        if figure is not None:
            yield name, figure, caption


def _code(text: str) -> Markup:
    """Markdown's `code` as HTML."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(Markup.escape(text))))


def _plain(table: list[list[str]]) -> list[list[str]]:
    """Cells without Markdown, which break after a semicolon alone: a number stays with its spread and unit."""
    return [[_plain_cell(cell) for cell in line] for line in table]


def _plain_cell(cell: str) -> str:
    text = cell.replace("\\*", "*").replace(" ", NBSP).replace(f";{NBSP}", "; ")
    return re.sub(r"^-(?=\d)", "−", text)
