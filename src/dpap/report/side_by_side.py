"""Several runs on one page: how they learned, what they cost, and how their configurations differ."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dpap.experiment import formatting
from dpap.experiment.comparing.results import RESULTS
from dpap.experiment.config import complete_from, read_yaml
from dpap.experiment.errors import UserError
from dpap.experiment.mending import leaves
from dpap.experiment.run_folder import REPORT_MARK, RunFolder
from dpap.files import write_text
from dpap.report import side_by_side_figures as figures
from dpap.report import words
from dpap.report.page import drawable, plate, template
from dpap.report.records import Run, read_run
from dpap.report.style import PALETTE

HEAD = (
    "run", "seed", "epochs", "test accuracy", "weights pruned", "parameters", "MACs", "synaptic operations",
    "energy, counted", "latency beside dense", "training",
)  # fmt: skip
OWN = {"out", "name"}
"""Keys of a configuration that differ from run to run and decide nothing."""


@dataclass(frozen=True)
class Named:
    """A run, by a name that no other on the page has."""

    name: str
    run: Run


def write_side_by_side(paths: Sequence[Path], folder: Path) -> Path:
    """Writes FOLDER/index.html and its figures from what the runs recorded; returns the page's path.

    Raises:
        FileNotFoundError: a path is no run folder.
        UserError: a path is a comparison or given twice, a file of a run holds something else than a run writes, or
            FOLDER has a page that no report wrote.
    """
    for path in paths:
        if (path / RESULTS).is_file():
            raise UserError(
                f"{path} is a comparison, which has a page of its own: expected runs; give its runs, or it alone"
            )
    _check_distinct(paths)
    page = folder / "index.html"
    if page.is_file() and REPORT_MARK.encode() not in page.read_bytes():
        raise UserError(f"{page} was written by something else: choose another folder (--out)")
    runs = [Named(name, read_run(path)) for name, path in zip(_names(paths), paths, strict=True)]
    folder.mkdir(parents=True, exist_ok=True)
    with drawable(folder):
        plates = [plate(folder, name, figure, caption) for name, figure, caption in _drawn(runs)]
    text = template("side_by_side.html.j2").render(
        names=[each.name for each in runs],
        head=HEAD,
        table=[_cells(each) for each in runs],
        plates=plates,
        missing=[f"{each.name}: {sentence}" for each in runs for sentence in each.run.missing],
        differences=differences(runs),
        palette=PALETTE,
    )
    write_text(page, text)
    return page


def _check_distinct(paths: Sequence[Path]) -> None:
    for one, other in itertools.combinations(paths, 2):
        if one.resolve() == other.resolve():
            raise UserError(f"expected different runs; got {one} and {other}, which are the same folder")


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = [str(Path(*part[-length:])) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _drawn(runs: Sequence[Named]) -> Iterator[tuple[str, Figure, str]]:
    named = [(each.name, each.run) for each in runs]
    candidates = (
        ("accuracy", figures.accuracies(named), ""),
        ("weights", figures.weights_alive(named), ""),
        ("size", figures.accuracy_by_size(named), "Logarithmic; parameters as stored, MACs of one sample."),
    )
    for name, figure, caption in candidates:
        if figure is not None:
            yield name, figure, caption


def _cells(each: Named) -> list[str]:
    """A line of the table below HEAD."""
    run = each.run
    after = run.summary.after if run.summary else None
    latency = words.latency(run)
    picojoules = after.picojoules if after else None
    return [
        each.name,
        formatting.ABSENT if run.seed is None else str(run.seed),
        str(len(run.epochs)) + ("" if run.summary else ", not finished"),
        formatting.accuracy(words.reported_accuracy(run)),
        formatting.percent(words.reported_sparsity(run)) if run.prunes else "dense",
        formatting.count(after.parameters if after else None),
        formatting.count(after.macs if after else None),
        formatting.count(after.synaptic_operations if after else None),
        formatting.quantity(None if picojoules is None else picojoules * formatting.PICO, "J"),
        latency.ratio if latency else formatting.ABSENT,
        formatting.duration(words.training_seconds(run)),
    ]


def differences(runs: Sequence[Named]) -> list[list[str]]:
    """What the configurations and facts of the runs do not share: a name, then its value in each run."""
    settings = [_settings(each.run) for each in runs]
    lines = []
    for key in dict.fromkeys(itertools.chain.from_iterable(settings)):
        values = [own.get(key) for own in settings]
        if any(value != values[0] for value in values):
            lines.append([key, *(formatting.ABSENT if value is None else str(value) for value in values)])
    return lines


def _settings(run: Run) -> dict[str, Any]:
    path = RunFolder(run.path).config
    stored = read_yaml(path) if path.is_file() else {}
    values = {key: value for key, value in leaves(complete_from(stored, str(path))).items() if key not in OWN}
    return {**values, "machine": words.machine(run) or None}
