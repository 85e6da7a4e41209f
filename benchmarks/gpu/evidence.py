"""What accuracy is left at full size? Runs of the grids, several at a time; one that the end stops goes on later."""

from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from jobs import Job, OutOfTime, Setting

from dpap.experiment.comparing.compare import states
from dpap.experiment.comparing.grid import Planned, plan, read_grid
from dpap.experiment.comparing.jobs import compare_in_processes
from dpap.experiment.comparing.results import Result, write_results
from dpap.experiment.config import ExperimentConfig, overridden

GRIDS = Path(__file__).resolve().parents[2] / "recipes" / "grids"
AT_ONCE = 5
"""Processes that share the device: one alone waits for its own Python at most steps."""
TINY: dict[str, Any] = {
    "data": {"train_limit": 100, "test_limit": 50, "batch_size": 50},
    "network": {"width": 0.05},
    "pruning": {"start_epoch": 0, "end_epoch": 1},
    "training": {"epochs": 1, "warmup_epochs": 0, "precision": "float32", "threads": 1},
}


def accuracies(
    grid: str, name: str, methods: list[str], targets: list[float], seeds: list[int], setting: Setting
) -> dict[str, Any]:
    """The chosen runs of a grid; those that are not ready when the time is over are counted in `error`, and go on."""
    runs = chosen(grid, name, methods, targets, seeds, setting)
    folder = setting.runs / grid
    failed: list[tuple[Planned, str]] = []
    with suppress(OutOfTime):
        failed = compare_in_processes(runs, folder, min(AT_ONCE, len(runs)), quiet=True).failed
    finished = {str(run.files.path) for run in runs if run.files.summary.exists()}
    rows = [row(each) for each in write_results(runs, folder) if str(folder / each.run) in finished]
    outcome: dict[str, Any] = {"n": len(rows), "at once": AT_ONCE, "runs": rows}
    if len(finished) < len(runs):
        open_ = [f"{run}: {why}" for run, state, why in states(runs, folder) if state != "finished"]
        outcome["error"] = f"{len(finished)} of {len(runs)} runs finished; {'; '.join(open_)}"[:1000]
        outcome["failed"] = [f"{run}: {why}"[:500] for run, why in failed]
    return outcome


def chosen(
    grid: str, name: str, methods: list[str], targets: list[float], seeds: list[int], setting: Setting
) -> list[Planned]:
    """The runs of a grid that a job names, and their dense twins.

    Raises:
        ValueError: when the grid has none of them.
    """

    def settled(config: ExperimentConfig) -> ExperimentConfig:
        changes: dict[str, Any] = {"training": {"device": setting.device.type}}
        if setting.data is not None:
            changes["data"] = {"root": str(setting.data)}
        config = overridden(config, changes)
        if not setting.rehearse:
            return config
        tiny = dict(TINY)
        if config.network.timesteps > 1:
            tiny["network"] = {**TINY["network"], "timesteps": 2}
        return overridden(config, tiny)

    rows = [
        replace(
            each,
            methods=[method for method in each.methods if method in methods],
            targets=[target for target in each.targets if target in targets],
            seeds=[seed for seed in each.seeds if seed in seeds],
        )
        for each in read_grid(GRIDS / f"{grid}.yaml", methods=[], targets=[], seeds=[], settle=settled)
        if each.recipe == name
    ]
    rows = [each for each in rows if each.methods and each.targets and each.seeds]
    if not rows:
        raise ValueError(f"grid {grid} has no runs of {name} with {methods}, {targets}, seeds {seeds}")
    return plan(rows, setting.runs / grid)


def row(result: Result) -> dict[str, Any]:
    """What the tables show of a run."""
    keys = ("method", "target", "target_of", "seed", "protocol", "epochs", "accuracy", "sparsity")
    keys += ("parameters", "weights", "macs", "synaptic_operations", "seconds")
    return {key: getattr(result, key) for key in keys}


def _job(what: str, seconds: float, *given: Any) -> Job:
    return Job("evidence", what, seconds, partial(accuracies, *given), resumable=True)


VGG, SIX, TWO = "cifar10_vgg16_full", "cifar10_6conv2fc_full", "mnist_snn_full"
AUGMENTED = "cifar10_6conv2fc_augmented"
ALL = ["dpap", "scratch", "magnitude", "paper", "random_once"]
LATER = ["dpap", "scratch_widths", "global_magnitude", "strength"]
PAPER, RATES = ["paper", "dpap"], [0.6125, 0.8422]
FEW = ["dpap", "scratch", "magnitude"]
JOBS = [
    _job("VGG16, 90 %, seed 0", 240, "cifar10_full", VGG, ALL, [0.9], [0]),
    _job("spiking 2Conv2FC, the paper's rates, seed 0", 200, "mnist_full", TWO, PAPER, RATES, [0]),
    _job("VGG16, 90 %, seed 1", 240, "cifar10_full", VGG, ALL, [0.9], [1]),
    _job("VGG16, 80 % of the MACs, seed 0", 170, "cifar10_full", VGG, FEW, [0.8], [0]),
    _job("VGG16, 95 %, seed 0", 200, "cifar10_full", VGG, [*FEW, "paper"], [0.95], [0]),
    _job("VGG16, 41.54 %, seed 0", 200, "cifar10_full", VGG, [*FEW, "paper"], [0.4154], [0]),
    _job("spiking 6Conv2FC, 33.46 and 90 %, seed 0", 400, "cifar10_full", SIX, FEW, [0.3346, 0.9], [0]),
    _job("spiking 2Conv2FC, 98 %, seed 0", 120, "mnist_full", TWO, FEW, [0.98], [0]),
    _job("spiking 2Conv2FC, the paper's rates, seed 1", 200, "mnist_full", TWO, PAPER, RATES, [1]),
    _job("VGG16, other criteria at 90 %, seed 0", 250, "cifar10_full", VGG, LATER, [0.9], [0]),
    _job(
        "spiking 6Conv2FC, 50.8 and 97.8 %, seed 0",
        500,
        "cifar10_full",
        SIX,
        [*FEW, "paper"],
        [0.508, 0.978],
        [0],
    ),
    _job(
        "spiking 6Conv2FC, augmented, 33.46 and 90 %, seed 0",
        900,
        "cifar10_full",
        AUGMENTED,
        FEW,
        [0.3346, 0.9],
        [0],
    ),
]
