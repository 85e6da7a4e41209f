"""`dpap export RUN --to plain` and `--to hub`: files for those who have no dpap."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from dpap.data.registry import DATASETS
from dpap.experiment.errors import UserError
from dpap.experiment.formatting import accuracy, count, quantity
from dpap.experiment.using.kept import Kept
from dpap.export import export_hub
from dpap.export.plain_check import compare_plain
from dpap.surgery import save
from dpap.surgery.plain import not_plain

if TYPE_CHECKING:  # it draws figures, which no other export needs
    from dpap.report.records import Run


def check_in_turn(kept: Kept) -> None:
    """Check that a run's network can be written without dpap.

    Raises:
        UserError: where its code is dpap's.
    """
    why = not_plain(kept.model)
    if why is not None:
        raise UserError(
            f"the network of this run does not run without dpap: {why}; --to hub writes it for dpap"
        )


def write_plain_run(kept: Kept, samples: Tensor, path: Path) -> str:
    """Write a run's network as a state dict, widths and a script; returns what was written and how far it differs."""
    check_in_turn(kept)
    save(kept.model, path, "plain")
    return f"{path}: {path.stat().st_size:,} bytes\nits script beside dpap {compare_plain(path, kept.model, samples)}"


def write_hub_run(
    kept: Kept,
    folder: Path,
    out: Path,
    licence: str,
    licence_file: Path,
    tags: Sequence[str],
    overwrite: bool,
) -> str:
    """Write a run's folder for a model hub; returns what was written."""
    from dpap.report.records import read_run

    run = read_run(folder)
    try:
        text = licence_file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{licence_file}: expected the text of a licence in UTF-8, got {error}") from error
    try:
        export_hub(
            kept.model,
            out,
            name=kept.config.name,
            licence=licence,
            licence_text=text,
            measured=measured_of(run),
            conditions=conditions_of(run),
            inputs=inputs_of(kept),
            dense=dense_of(kept),
            tags=("spiking", *tags) if kept.config.network.spiking else tags,
            datasets=[kept.config.data.name],
            metrics=["accuracy"],
            overwrite=overwrite,
        )
    except FileExistsError as error:
        raise UserError(f"{error}{' (--out)' if overwrite else ' (--out, --overwrite)'}") from error
    return f"{out}: {', '.join(sorted(each.name for each in out.iterdir()))}"


def inputs_of(kept: Kept) -> str:
    """What becomes of the pixels of an image before the network takes them; nothing of data of other kinds."""
    source = DATASETS.get(kept.config.data.name)
    if source is None or source.events:
        return ""
    shape = ", ".join(map(str, kept.data.input_shape))
    text = f"Images [batch, {shape}], floats: pixels from 0 to {source.full}, divided by {source.full}"
    statistics = source.image_converter(kept.config.data).statistics
    if statistics is None:
        return f"{text}."
    means, deviations = (", ".join(f"{each:.6g}" for each in part) for part in statistics)
    return f"{text}, **then normalised**: by channel, minus the mean ({means}), over the deviation ({deviations})."


def dense_of(kept: Kept) -> str:
    """Python that builds the dense network of a run."""
    shape, classes = tuple(kept.data.input_shape), kept.data.classes
    return (
        "from dpap.models import NetworkConfig, build_network\n\n\ndef build():\n"
        f"    config = {kept.config.network!r}\n    return build_network(config, {shape!r}, {classes})\n"
    )


def measured_of(run: "Run") -> dict[str, tuple[str | None, str | None]]:
    """What a run and its dense twin recorded, as a card lists it."""
    summary, twin = run.summary, run.twin.summary if run.twin is not None else None
    if summary is None:
        return {}
    before, after = summary.before, summary.after
    rows: dict[str, tuple[str | None, str | None]] = {
        "accuracy on the test split": (
            None if twin is None else accuracy(twin.final_test_accuracy),
            accuracy(summary.final_test_accuracy),
        )
    }
    if before is not None and after is not None:
        rows["parameters"] = (count(before.parameters), count(after.parameters))
        rows["weights that are not zero"] = (count(before.weights), count(after.weights))
        rows["multiply-accumulates of a sample"] = (count(before.macs), count(after.macs))
        rows["latency of one sample"] = (
            quantity(before.latency_seconds, "s"),
            quantity(after.latency_seconds, "s"),
        )
    return rows


def conditions_of(run: "Run") -> str:
    """On what that was measured."""
    parts = [
        f"{key} {run.machine[key]}" for key in ("cpu", "device", "threads", "torch") if key in run.machine
    ]
    seed = "" if run.seed is None else f"One training run, seed {run.seed}. "
    return f"{seed}Latency: in PyTorch, {', '.join(parts)}." if parts else seed.strip()
