"""A recipe's dense twin and its pruned twins over targets and seeds, each pair from the same initial weights."""

import csv
import io
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from dpap.experiment.config import ExperimentConfig, load_config
from dpap.experiment.errors import UserError, blame
from dpap.experiment.progress import Quiet
from dpap.experiment.run_folder import Record, RunFolder, read_lines, write_text
from dpap.experiment.tables import text_table
from dpap.experiment.train import resume, train


@dataclass(frozen=True)
class Result:
    """One run, a line of results.csv; costs are per sample, all timesteps.

    Attributes:
        method: "dense", "dpap" (no target) or "dpap-0.6" (target 0.6).
        target: share of the weights that was to die; None where none was set.
        seed: of the run.
        accuracy: on the test split, of the kept network.
        sparsity, timestep_sparsity: dead share of weights and neuron-timesteps.
        converged: first epoch that reached the best test accuracy of the dense twin, the paper's measure of speed;
            None where no epoch did.
        parameters, weights, macs, synaptic_operations, picojoules, energy, latency_seconds: of the kept network.
        first_seconds, last_seconds: of training in an epoch, median of the first two and of the last five.
        seconds: of training in all.
        model_bytes: size of the model file.
        run: its folder, within the comparison's.
    """

    method: str
    target: float | None
    seed: int
    accuracy: float
    sparsity: float
    timestep_sparsity: float
    converged: int | None
    parameters: int
    weights: int
    macs: int
    synaptic_operations: float
    picojoules: float
    energy: float
    latency_seconds: float
    first_seconds: float
    last_seconds: float
    seconds: float
    model_bytes: int
    run: str


def compare(
    config: ExperimentConfig,
    targets: Sequence[float],
    seeds: Sequence[int],
    folder: Path,
    *,
    overwrite: bool = False,
    progress: Callable[[], Quiet] = Quiet,
    command: str = "",
) -> list[Result]:
    """Run the twins that are not finished yet, and write results.csv after each.

    Args:
        config: the recipe; its own target counts where `targets` is empty.
        targets: of the pruned twins, one each.
        seeds: one dense and one pruned twin per target for each.
        folder: holds one run folder a twin; call again with it to go on.
        overwrite: begin again with runs that are there.
        progress: makes what is told of each run.
        command: written into each run.

    Raises:
        UserError: when a run in the folder has another configuration.
    """
    if not seeds:
        raise UserError("compare needs at least one seed; got none")
    methods = dict(_methods(config, targets))
    results: list[Result] = []
    for seed in seeds:
        dense: Record | None = None
        for method, made in methods.items():
            name = f"{method}-seed{seed}"
            run = replace(made, name=name, seed=seed, out=str(folder / name))
            telling = progress()
            telling.say(f"{name}:")
            summary = _finished(run, overwrite, telling, command)
            path = RunFolder(folder / name)
            if dense is None:
                dense = summary
            else:
                write_text(path.twin, os.path.relpath(folder / f"dense-seed{seed}", path.path) + "\n")
            target = made.pruning.target if made.prune else None
            epochs = read_lines(path.metrics)
            results.append(result(method, target, seed, summary, dense, epochs, path))
            write_text(folder / "results.csv", as_csv(results))
    return results


def _methods(config: ExperimentConfig, targets: Sequence[float]) -> list[tuple[str, ExperimentConfig]]:
    methods = [("dense", replace(config, prune=False))]
    if not targets:
        own = config.pruning.target
        methods.append(("dpap" if own is None else f"dpap-{own:g}", replace(config, prune=True)))
    for target in targets:
        with blame("targets"):
            end = config.pruning.end_epoch or config.training.epochs
            pruning = replace(config.pruning, target=target, end_epoch=end)
        methods.append((f"dpap-{target:g}", replace(config, prune=True, pruning=pruning)))
    return methods


def _finished(config: ExperimentConfig, overwrite: bool, progress: Quiet, command: str) -> Record:
    folder = RunFolder(config.folder)
    if overwrite or not folder.holds_a_run():
        return train(config, overwrite=overwrite, progress=progress, command=command)
    stored = replace(load_config(folder.config), out=config.out)
    if stored != config:
        raise UserError(
            f"{folder.path} holds a run with another configuration; compare in another folder (--out) or "
            "begin again (--overwrite)"
        )
    return resume(folder.path, progress=progress)


def result(
    method: str,
    target: float | None,
    seed: int,
    summary: Record,
    dense: Record,
    epochs: Sequence[Record],
    folder: RunFolder,
) -> Result:
    """A finished run beside its dense twin."""
    goal, after = dense["best_test_accuracy"], summary["after"]
    return Result(
        method=method,
        target=target,
        seed=seed,
        accuracy=summary["final_test_accuracy"],
        sparsity=summary["sparsity"],
        timestep_sparsity=summary["timestep_sparsity"],
        converged=next((each["epoch"] for each in epochs if each["test_accuracy"] >= goal), None),
        parameters=after["parameters"],
        weights=after["weights"],
        macs=after["macs"],
        synaptic_operations=after["synaptic_operations"],
        picojoules=after["picojoules"],
        energy=after["energy"],
        latency_seconds=after["latency_seconds"],
        first_seconds=statistics.median(each["seconds"] for each in epochs[:2]),
        last_seconds=statistics.median(each["seconds"] for each in epochs[-5:]),
        seconds=summary["seconds_training"],
        model_bytes=summary["model_bytes"],
        run=folder.path.name,
    )


def as_csv(results: Sequence[Result]) -> str:
    """One line a run, one column a quantity; what is None is empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [field.name for field in fields(Result)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(each) for each in results)
    return buffer.getvalue()


def as_table(results: Sequence[Result]) -> str:
    """Mean and standard deviation over the seeds; differences are to the dense twin of the same seed."""
    dense = {each.seed: each for each in results if each.method == "dense"}
    rows = []
    for method in dict.fromkeys(each.method for each in results):
        own = [each for each in results if each.method == method]
        gains = [100 * (each.accuracy - dense[each.seed].accuracy) for each in own]
        rows.append(
            [
                method,
                str(len(own)),
                spread([100 * each.accuracy for each in own], 2),
                "" if method == "dense" else spread(gains, 2, sign=True),
                spread([100 * each.sparsity for each in own], 1),
                spread([100 * each.timestep_sparsity for each in own], 1),
                *(
                    f"{statistics.fmean(getattr(each, name) for each in own):,.0f}"
                    for name in ("parameters", "macs", "synaptic_operations")
                ),
                spread([each.seconds for each in own], 1),
            ]
        )
    head = [
        "method",
        "n",
        "accuracy %",
        "to dense",
        "pruned %",
        "timesteps %",
        "parameters",
        "MACs",
        "syn. ops",
        "s",
    ]
    return text_table(head, rows)


def spread(values: Sequence[float], digits: int, sign: bool = False) -> str:
    """Mean ± sample standard deviation; the mean alone of a single value."""
    plus = "+" if sign else ""
    mean = f"{statistics.fmean(values):{plus}.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"
