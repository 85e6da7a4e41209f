"""The report of a run as one self-contained HTML page, and its figures as PNG files beside it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from matplotlib.figure import Figure

from dpap.experiment import formatting
from dpap.experiment.errors import UserError
from dpap.files import write_bytes, write_text
from dpap.report import figures, structure, survival, words
from dpap.report.records import Cost, Run, read_run
from dpap.report.style import PALETTE, as_png, as_svg

SECTIONS = ("learning", "structure", "survival", "survival_folded", "time")
OF_SPIKES = ("synaptic_operations", "accumulates", "multiplies", "picojoules")
"""Costs that depend on spikes: those of a trained network do not compare with those of an untrained one."""
OPEN_LAYERS = 6
"""Survival figures that are shown; those of further layers are folded away."""


@dataclass(frozen=True)
class Plate:
    """A figure of the page: its drawing, and what it shows in words."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class CostRow:
    """One line of the cost table, as text."""

    name: str
    note: str
    before: str
    after: str
    ratio: str
    twin: str


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
    layers = list(dict.fromkeys(name for record in run.survival for name in record.layers))
    for index, layer in enumerate(layers):
        section = "survival" if index < OPEN_LAYERS else "survival_folded"
        file = f"survival-{index + 1}-{re.sub(r'[^A-Za-z0-9]+', '-', layer).strip('-') or 'layer'}"
        candidates.append((section, file, survival.survival_functions(run, layer), ""))
    for section, file, figure, caption in candidates:
        if figure is not None:
            yield section, file, figure, caption


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
        facts=_facts(run),
        tiles=_tiles(run),
        layers=structure.rows(run),
        stored=run.prunes and any(row.stored is not None for row in structure.rows(run)),
        steps=any(row.timesteps_alive < 1 for row in structure.rows(run)),
        costs=_costs(run),
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
        against = (
            f"scheduled {formatting.percent(targets[-1])}" if targets else "no target: as the rule prunes"
        )
        against = f"the target is of the {run.target_cost}" if run.target_cost else against
        tiles.append((formatting.percent(sparsity), "of the weights died", against))
    if run.target_cost and run.reported is not None:
        due = f"scheduled {formatting.percent(run.reported.target)}"
        tiles.append((formatting.percent(run.reported.achieved), f"of the {run.target_cost} saved", due))
    before, after = (run.summary.before, run.summary.after) if run.summary else (None, None)
    if before and after:
        operations = words.trained_operations(run)
        for what, old, new, write in (
            ("the parameters", before.parameters, after.parameters, formatting.rounded),
            ("the twin’s synaptic operations", operations, after.synaptic_operations, formatting.rounded),
            ("the latency", before.latency_seconds, after.latency_seconds, _seconds),
        ):
            if old and new is not None and run.prunes:
                tiles.append((formatting.ratio(new, old), what, f"{write(new)} of {write(old)}"))
    return tiles


def _facts(run: Run) -> list[tuple[str, str]]:
    """The facts by which the numbers can be judged and repeated."""
    kind = f"spiking, {run.timesteps} timesteps" if run.spiking and run.timesteps else "spiking"
    machine = ", ".join(
        f"{value}" if key == "cpu" else f"{key} {value}"
        for key, value in run.machine.items()
        if value is not None
    )
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
        "Machine": machine or None,
        "Dense twin": f"{run.twin.name}, seed {run.twin.seed}, {words.epochs(run.twin)}"
        if run.twin
        else None,
        "Started": _moment(run.started),
        "Finished": _moment(summary.finished) if summary else "not yet",
    }
    return [(name, value) for name, value in facts.items() if value]


def _moment(iso: str | None) -> str | None:
    return re.sub(r"T(\d\d:\d\d)(:\d\d)?(\.\d+)?", r" \1", iso).replace("+00:00", " UTC") if iso else None


def _costs(run: Run) -> list[CostRow]:
    before, after = (run.summary.before, run.summary.after) if run.summary else (None, None)
    twin = run.twin.summary.after if run.twin and run.twin.summary else None
    quantities: list[tuple[str, str, str, Any]] = [
        ("parameters", "Parameters", "", formatting.count),
        ("weights", "Weights", "not zero", formatting.count),
        ("macs", "Multiply-accumulates", "one sample, zeros counted", formatting.count),
        (
            "synaptic_operations",
            "Synaptic operations",
            "one sample, real spikes; ratio to the twin’s" if twin else "one sample, real spikes",
            formatting.count,
        ),
        ("accumulates", "of these, additions", "spikes, and counts of spikes one by one", formatting.count),
        ("multiplies", "of these, with multiplication", "analogue input", formatting.count),
        ("picojoules", "Energy, counted", "one sample, of these operations in 45 nm", _picojoules),
        ("energy", "Energy, by (14), (15)", "one sample, as the paper estimates it", _joules),
        ("latency_seconds", "Latency", "one sample", _seconds),
    ]
    table = []
    for key, name, note, write in quantities:
        old, new, dense = (_cost(cost, key) for cost in (before, after, twin))
        if old is not None or new is not None:
            ratio = formatting.ratio(new, dense if key in OF_SPIKES else old)
            table.append(CostRow(name, note, write(old), write(new), ratio, write(dense)))
    return table


def _picojoules(value: float | None) -> str:
    return formatting.quantity(None if value is None else value * formatting.PICO, "J")


def _joules(value: float | None) -> str:
    return formatting.quantity(value, "J")


def _seconds(value: float | None) -> str:
    return formatting.quantity(value, "s")


def _cost(cost: Cost | None, key: str) -> float | None:
    return getattr(cost, key) if cost is not None else None
