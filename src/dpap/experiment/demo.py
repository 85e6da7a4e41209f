"""The demonstration: a dense and a pruned spiking network on the embedded digits, side by side."""

from collections.abc import Callable, Sequence
from pathlib import Path

from dpap.experiment.comparing.compare import compare
from dpap.experiment.comparing.grid import Row, plan
from dpap.experiment.comparing.results import Result
from dpap.experiment.config import ExperimentConfig, load_config
from dpap.experiment.errors import UserError
from dpap.experiment.formatting import PICO, quantity
from dpap.experiment.progress import Quiet
from dpap.experiment.recipes import recipe_path
from dpap.experiment.tables import text_table


def demo_config() -> ExperimentConfig:
    """The recipe of the demonstration."""
    return load_config(recipe_path("digits_snn"))


def demo(
    folder: Path,
    *,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[], Quiet] = Quiet,
    command: str = "",
) -> tuple[Result, Result]:
    """Train both twins of the recipe into `folder`; returns (dense, pruned).

    Raises:
        UserError: when one of them failed, or is being trained by another process.
    """
    runs = plan([Row("digits_snn", demo_config(), ["dpap"], [], [seed])], folder)
    done = compare(runs, folder, overwrite=overwrite, progress=progress, command=command)
    for run, why in done.failed:
        raise UserError(f"{run}: {why}")
    if done.elsewhere:
        raise UserError(
            f"another process is running in {folder}; wait for it, or take another folder (--out)"
        )
    dense, pruned = done.results
    return dense, pruned


def demo_table(dense: Result, pruned: Result) -> str:
    """The twins side by side, one quantity a line."""
    lines: Sequence[tuple[str, Callable[[Result], float], Callable[[float], str]]] = (
        ("weights", lambda run: run.weights, lambda value: f"{value:,.0f}"),
        ("parameters stored", lambda run: run.parameters, lambda value: f"{value:,.0f}"),
        ("MACs per image", lambda run: run.macs, lambda value: f"{value:,.0f}"),
        ("synaptic operations per image", lambda run: run.synaptic_operations, lambda value: f"{value:,.0f}"),
        ("energy per image, counted", lambda run: run.picojoules, lambda value: quantity(value * PICO, "J")),
        ("energy per image, (14), (15)", lambda run: run.energy, lambda value: quantity(value, "J")),
        ("a training epoch at first", lambda run: run.first_seconds, lambda value: quantity(value, "s")),
        ("a training epoch at the end", lambda run: run.last_seconds, lambda value: quantity(value, "s")),
        ("model file", lambda run: run.model_bytes, lambda value: f"{value / 1024:,.0f} KiB"),
    )
    points = f"{100 * (pruned.accuracy - dense.accuracy):+.2f} points".replace("-", "−")
    rows = [["test accuracy", f"{dense.accuracy:.2%}", f"{pruned.accuracy:.2%}", points]]
    rows += [
        [name, write(value(dense)), write(value(pruned)), f"{value(pruned) / value(dense):.0%}"]
        for name, value, write in lines
    ]
    return text_table(["", "dense", f"DPAP ({pruned.sparsity:.0%} pruned)", "beside dense"], rows)
