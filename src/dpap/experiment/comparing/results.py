"""The results of a comparison, run by run and epoch by epoch: read from the run folders, kept as CSV."""

import csv
import hashlib
import io
import math
import statistics
import types
from collections import ChainMap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from dpap.experiment.comparing.grid import Planned
from dpap.experiment.errors import UserError, blame, explained
from dpap.experiment.locks import comparison_lock
from dpap.experiment.run_folder import RunFolder
from dpap.experiment.sealed import Record, read_lines, read_text
from dpap.files import write_text

RESULTS, EPOCHS = "results.csv", "epochs.csv"
CHECKSUMS = "results.sha256"
"""Of both, as `sha256sum --check` reads them; tables without it are taken as they are."""


@dataclass(frozen=True)
class Result:
    """One run, a line of results.csv; costs are of the kept network, per sample, all timesteps.

    Attributes:
        recipe: its row in the grid.
        network, data: of the recipe.
        method: of METHODS.
        target: share that was to be pruned; None where none was set.
        target_of: what the target is a share of: the weights, unless set otherwise.
        seed: of the run; runs of one recipe and seed begin with the same weights and see the same batches.
        protocol: how the kept epoch was chosen.
        epochs: of training.
        accuracy: on the test split, of the kept network.
        final_epoch: the epoch that is kept.
        best_epoch, best_accuracy: the highest test accuracy of any epoch.
        sparsity, timestep_sparsity: dead share of weights and neuron-timesteps.
        achieved: share that was pruned of what `target_of` names; None for the dense twin, and where it is not known.
        converged: first epoch that reached the best test accuracy of the dense twin, the paper's measure of speed;
            None where no epoch did.
        seconds_to_converge: of training until then.
        parameters: stored.
        weights: those that are not zero.
        macs, synaptic_operations: per sample.
        energy: joules, by (14) and (15).
        picojoules: energy of the operations that are really done.
        latency_seconds: of a batch of one.
        first_seconds, last_seconds: of training in an epoch, median of the first two and of the last five.
        seconds: of training in all.
        model_bytes: size of the model file.
        run: its folder, within the comparison's.
    """

    recipe: str
    network: str
    data: str
    method: str
    target: float | None
    target_of: str
    seed: int
    protocol: str
    epochs: int
    accuracy: float
    final_epoch: int
    best_epoch: int
    best_accuracy: float
    sparsity: float
    timestep_sparsity: float
    achieved: float | None
    converged: int | None
    seconds_to_converge: float | None
    parameters: int
    weights: int
    macs: int
    synaptic_operations: float
    energy: float
    picojoules: float
    latency_seconds: float
    first_seconds: float
    last_seconds: float
    seconds: float
    model_bytes: int
    run: str


@dataclass(frozen=True)
class EpochResult:
    """One epoch of one run, a line of epochs.csv.

    Attributes:
        recipe, method, target, target_of, seed: as in Result.
        epoch: from 1.
        accuracy, validation_accuracy: on the test and the validation split.
        sparsity, timestep_sparsity: dead share.
        weights_alive: of all weight layers.
        seconds: of training.
    """

    recipe: str
    method: str
    target: float | None
    target_of: str
    seed: int
    epoch: int
    accuracy: float
    validation_accuracy: float | None
    sparsity: float
    timestep_sparsity: float
    weights_alive: int
    seconds: float


Line = TypeVar("Line", Result, EpochResult)


def collect(runs: Sequence[Planned], folder: Path) -> tuple[list[Result], list[EpochResult]]:
    """Results and epochs of the runs that are finished, in the order of `runs`."""
    results: list[Result] = []
    epochs: list[EpochResult] = []
    for run in runs:
        if run.files.summary.exists():
            with _finished(run.files):
                summary, records = run.files.read_summary(), read_lines(run.files.metrics)
                if len(records) != summary["epochs"]:
                    raise ValueError(f"metrics.jsonl has {len(records)} of {summary['epochs']} epochs")
                dense = RunFolder(run.dense)
                twin = dense.read_summary() if dense.summary.exists() else None
                results.append(_result(run, summary, twin, records, folder))
                epochs += [_epoch_result(run, summary, record) for record in records]
    return results, epochs


@contextmanager
def _finished(folder: RunFolder) -> Iterator[None]:
    """What is wrong with the records of a finished run is said with what to do."""
    try:
        with blame(str(folder.path)):
            yield
    except UserError as error:
        raise UserError(f"{error}. Mend the run: {folder.resume_command}") from error


def _result(
    run: Planned, summary: Record, dense: Record | None, epochs: Sequence[Record], folder: Path
) -> Result:
    """A finished run beside its dense twin, None while that is not finished."""
    goal = dense["best_test_accuracy"] if dense is not None else math.inf
    converged = next((each["epoch"] for each in epochs if each["test_accuracy"] >= goal), None)
    until = None if converged is None else [each["seconds"] for each in epochs if each["epoch"] <= converged]
    return _line(
        Result,
        run,
        summary,
        summary["after"],
        network=run.config.network.layers,
        data=run.config.data.name,
        accuracy=summary["final_test_accuracy"],
        best_accuracy=summary["best_test_accuracy"],
        achieved=summary["achieved"] if summary["target_of"] == run.target_of else None,
        converged=converged,
        seconds_to_converge=None if until is None else math.fsum(until),
        first_seconds=statistics.median(each["seconds"] for each in epochs[:2]),
        last_seconds=statistics.median(each["seconds"] for each in epochs[-5:]),
        seconds=summary["seconds_training"],
        run=run.config.folder.relative_to(folder).as_posix(),
    )


def _epoch_result(run: Planned, summary: Record, record: Record) -> EpochResult:
    if record["layers"]:
        alive = sum(layer["weights_alive"] for layer in record["layers"])
    else:
        alive = sum(layer["weights"] for layer in summary["before"]["layers"])
    return _line(EpochResult, run, record, accuracy=record["test_accuracy"], weights_alive=alive)


def _line(kind: type[Line], run: Planned, /, *records: Record, **given: Any) -> Line:
    """A line of a table: each field from what is `given`, the plan, or the first of the records that has its name."""
    planned = {name: getattr(run, name) for name in ("recipe", "method", "target", "target_of", "seed")}
    values = ChainMap(given, planned, *records)
    return kind(**{field.name: values[field.name] for field in fields(kind)})


def write_results(runs: Sequence[Planned], folder: Path) -> list[Result]:
    """Write results.csv and epochs.csv of the finished runs, and their checksums; returns the results."""
    with comparison_lock(folder, "results"):
        results, epochs = collect(runs, folder)
        tables = {RESULTS: as_csv(Result, results), EPOCHS: as_csv(EpochResult, epochs)}
        for name, text in tables.items():
            write_text(folder / name, text)
        write_text(
            folder / CHECKSUMS,
            "".join(f"{_checksum(text.encode())}  {name}\n" for name, text in tables.items()),
        )
    return results


def read_results(folder: Path) -> tuple[list[Result], list[EpochResult]]:
    """What `write_results` wrote last, also while another process writes it.

    Raises:
        UserError: when it is damaged.
    """
    with comparison_lock(folder, "results"):
        return read_csv(Result, folder / RESULTS), read_csv(EpochResult, folder / EPOCHS)


def as_csv(kind: type[Line], lines: Sequence[Line]) -> str:
    """One line a record, one column a quantity; what is None is empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [field.name for field in fields(kind)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(each) for each in lines)
    return buffer.getvalue()


def read_csv(kind: type[Line], path: Path) -> list[Line]:
    """The records of a file that `as_csv` made.

    Raises:
        UserError: when it is none.
    """
    types_of = get_type_hints(kind)
    try:
        content = path.read_bytes()
        checksums = path.with_name(CHECKSUMS)
        if (
            checksums.is_file()
            and f"{_checksum(content)}  {path.name}" not in read_text(checksums).splitlines()
        ):
            raise UserError(
                f"{path} was changed or damaged after it was written, its checksum in {CHECKSUMS} does not fit: the "
                "same `dpap compare` writes it anew"
            )
        reader = csv.DictReader(io.StringIO(content.decode(), newline=""))
        return [
            kind(**{field.name: _value(row[field.name], types_of[field.name]) for field in fields(kind)})
            for row in reader
        ]
    except OSError as error:
        raise UserError(explained(error)) from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path} is not the table that dpap compare writes ({type(error).__name__}: {error})"
        ) from error


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _value(text: str, kind: Any) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        if text == "":
            return None
        kind = next(each for each in get_args(kind) if each is not types.NoneType)
    return kind(text)
