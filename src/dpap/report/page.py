"""The report of a run as one self-contained HTML page, and its figures as PNG files beside it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from matplotlib.figure import Figure

from dpap.experiment import formatting
from dpap.experiment.errors import UserError
from dpap.files import write_bytes, write_text
from dpap.report import cost_table, figures, raster, structure, survival, words
from dpap.report.records import Run, read_run
from dpap.report.style import PALETTE, as_png, as_svg

SECTIONS = ("learning", "structure", "spikes", "spikes_folded", "survival", "survival_folded", "time")
OPEN_LAYERS = 6
"""Figures of layers, of one kind, that are shown; those of further layers are folded away."""


@dataclass(frozen=True)
class Plate:
    """A figure of the page: its drawing, and what it shows in words."""

    svg: Markup
    caption: str


def write_report(run: Path) -> Path:
    """Writes RUN/report/index.html and its figures from what the run recorded; returns the page's path.

    Raises:
        FileNotFoundError: `run` is no run folder.
        UserError: a file of it holds something else than a run writes.
    """
    records = read_run(run)
    folder = run / "report"
    folder.mkdir(exist_ok=True)
    page = folder / "index.html"
    with drawable(run):
        plates: dict[str, list[Plate]] = {section: [] for section in SECTIONS}
        for section, name, figure, caption in _drawn(records):
            plates[section].append(plate(folder, name, figure, caption))
        text = _render(records, plates)
    write_text(page, text)
    return page


@contextmanager
def drawable(run: Path) -> Iterator[None]:
    """Names the folder where its numbers are of the right types, but none that training gives: nothing draws them."""
    try:
        yield
    except (ArithmeticError, ValueError, RuntimeError, MemoryError) as error:
        raise UserError(
            f"{run}: its numbers cannot be drawn ({type(error).__name__}: {error}): they were changed or damaged"
        ) from error


def plate(folder: Path, name: str, figure: Figure, caption: str) -> Plate:
    """Writes a figure to FOLDER/NAME.png; returns it for the page."""
    write_bytes(folder / f"{name}.png", as_png(figure))
    return Plate(Markup(as_svg(figure)), caption)


def _drawn(run: Run) -> Iterator[tuple[str, str, Figure, str]]:
    """(section, file name, figure, caption) of every figure that the records allow."""
    if not run.epochs:
        return
    candidates = [
        ("learning", "accuracy", figures.accuracies(run), words.convergence_sentence(run)),
        ("learning", "sparsity", figures.sparsities(run), ""),
        ("structure", "network", structure.network(run), ""),
        ("structure", "fates", structure.unit_map(run), ""),
        ("structure", "units", figures.units_alive(run), ""),
        ("structure", "weights", figures.weights_alive(run), ""),
        ("time", "seconds", figures.epoch_seconds(run), words.time_sentence(run)),
        ("time", "epsilon", figures.decay_values(run), ""),
    ]
    for index, spiking in enumerate(run.spikes.layers if run.spikes else ()):
        section = "spikes" if index < OPEN_LAYERS else "spikes_folded"
        file = _file_name("spikes", index, spiking.name)
        candidates.append((section, file, raster.raster(spiking), raster.caption(spiking)))
    layers = list(dict.fromkeys(name for record in run.survival for name in record.layers))
    for index, layer in enumerate(layers):
        section = "survival" if index < OPEN_LAYERS else "survival_folded"
        file = _file_name("survival", index, layer)
        candidates.append((section, file, survival.survival_functions(run, layer), ""))
    for section, file, figure, caption in candidates:
        if figure is not None:
            yield section, file, figure, caption


def _file_name(kind: str, index: int, layer: str) -> str:
    return f"{kind}-{index + 1}-{re.sub(r'[^A-Za-z0-9]+', '-', layer).strip('-') or 'layer'}"


def template(name: str) -> Template:
    """A template beside this file."""
    environment = Environment(
        loader=PackageLoader("dpap", "report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(name)


def _render(run: Run, plates: dict[str, list[Plate]]) -> str:
    return template("page.html.j2").render(
        run=run,
        formatting=formatting,
        palette=PALETTE,
        plates=plates,
        headline=words.headline(run),
        lead=words.lead(run),
        latency=words.latency(run),
        sample=words.sample(run),
        facts=_facts(run),
        tiles=_tiles(run),
        layers=structure.rows(run),
        stored=run.prunes and any(row.stored is not None for row in structure.rows(run)),
        steps=any(row.timesteps_alive < 1 for row in structure.rows(run)),
        costs=cost_table.groups(run),
        cost_head=cost_table.head(run),
        compared=cost_table.introduction(run),
        validated=any(epoch.validation_accuracy is not None for epoch in run.epochs),
    )


def _tiles(run: Run) -> list[tuple[str, str, str]]:
    """(number, what, beside what): the results at a glance."""
    tiles = []
    dense = words.reported_accuracy(run.twin) if run.twin else None
    if (reached := words.reported_accuracy(run)) is not None:
        when = f"after epoch {run.reported.epoch}" if run.reported else ""
        against = f"dense twin {formatting.accuracy(dense)}" if dense is not None else when
        tiles.append((formatting.accuracy(reached), "test accuracy", against))
    if run.prunes and (sparsity := words.reported_sparsity(run)) is not None:
        targets = [
            epoch.target for epoch in run.epochs if epoch.target is not None and run.target_cost is None
        ]
        if run.target_cost:
            against = f"the target is of the {run.target_cost}"
        elif targets:
            against = f"scheduled {formatting.percent(targets[-1])}"
        elif run.target is not None:
            against = f"target {formatting.percent(run.target)}"
        else:
            against = "no target: as the rule prunes"
        tiles.append((formatting.percent(sparsity), "of the weights died", against))
    if run.target_cost and run.reported is not None:
        scheduled = run.reported.target
        due = (
            f"target {formatting.percent(run.target)}"
            if scheduled is None
            else f"scheduled {formatting.percent(scheduled)}"
        )
        tiles.append((formatting.percent(run.reported.achieved), f"of the {run.target_cost} saved", due))
    before, after = (run.summary.before, run.summary.after) if run.summary else (None, None)
    if before and after:
        operations = words.trained_operations(run)
        for what, old, new in (
            ("the parameters", before.parameters, after.parameters),
            ("the twin’s synaptic operations", operations, after.synaptic_operations),
        ):
            if old and new is not None and run.prunes:
                beside = f"{formatting.rounded(new)} of {formatting.rounded(old)}"
                tiles.append((formatting.ratio(new, old), what, beside))
    if latency := words.latency(run):
        tiles.append((latency.ratio, "latency of one sample", f"{latency.own}, dense {latency.dense}"))
    return tiles


def _facts(run: Run) -> list[tuple[str, str]]:
    """The facts by which the numbers can be judged and repeated."""
    kind = f"spiking, {run.timesteps} timesteps" if run.spiking and run.timesteps else "spiking"
    summary = run.summary
    best = None
    if summary is not None and summary.best_epoch is not None:
        best = f"{formatting.accuracy(summary.best_test_accuracy)} in epoch {summary.best_epoch}"
    facts = {
        "Network": f"{run.network} ({kind if run.spiking else 'not spiking'})" if run.network else None,
        "Data": run.data or run.dataset,
        "Protocol": words.protocol(run),
        "Best of any epoch": best,
        "Convergence": words.convergence(run),
        "Seeds": f"n = 1, seed {run.seed}" if run.seed is not None else "n = 1, seed not recorded",
        "Training": f"{formatting.duration(words.training_seconds(run))} for {words.epochs(run)}"
        if run.epochs
        else None,
        "Machine": words.machine(run) or None,
        "Dense twin": f"{run.twin.name}, seed {run.twin.seed}, {words.epochs(run.twin)}"
        if run.twin
        else None,
        "Started": _moment(run.started),
        "Finished": _moment(summary.finished) if summary else "not yet",
    }
    return [(name, value) for name, value in facts.items() if value]


def _moment(iso: str | None) -> str | None:
    return re.sub(r"T(\d\d:\d\d)(:\d\d)?(\.\d+)?", r" \1", iso).replace("+00:00", " UTC") if iso else None
