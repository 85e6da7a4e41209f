"""What a run's compact network does and costs where it is used: its scores, and its speed beside the dense one's."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from dpap.data import DataBundle, DataConfig
from dpap.data.kind import SampleKind, kind_of
from dpap.experiment.errors import UserError
from dpap.experiment.losses import loss_function
from dpap.experiment.machine import describe_machine, repeatable, with_threads
from dpap.experiment.scores import scored
from dpap.experiment.sealed import Record
from dpap.experiment.using.candidates import (
    DENSE,
    RUNTIMES,
    SILENCED,
    Candidate,
    LeftOut,
    calibration_samples,
    candidates,
    samples_of,
)
from dpap.experiment.using.deployed import Deployed, deploy, read_config, read_data, same_test_samples
from dpap.experiment.using.kept import finished
from dpap.metrics import parameters
from dpap.metrics.alternating import alternate, compared


@dataclass(frozen=True)
class Measurements:
    """What is measured.

    Attributes:
        batches: numbers of samples at a time.
        rounds: in each of which every candidate runs once; 0 measures no time.
        threads: of the processor, for PyTorch and onnxruntime alike; None is as the run had.
        runtimes: of RUNTIMES.
        calibration: training samples, on which the ranges for 8-bit integers are measured.
    """

    batches: Sequence[int] = (1, 64)
    rounds: int = 20
    threads: int | None = None
    runtimes: Sequence[str] = RUNTIMES
    calibration: int = 512

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1:
            raise UserError(f"--batches are numbers of samples, at least 1; got {list(self.batches)}")
        if self.rounds < 0 or self.rounds == 1:
            raise UserError(f"--rounds must be at least 2, or 0 to measure no time; got {self.rounds}")
        for name in ("threads", "calibration"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise UserError(f"--{name} must be at least 1; got {number}")


def evaluate_run(
    path: Path,
    changes: Mapping[str, Any],
    measured: Measurements,
    *,
    allow_imports: bool = False,
    device: str | None = None,
) -> Record:
    """Score and time a run's compact network.

    Args:
        path: the run folder, of which the configuration and the model file are read.
        changes: fields of the run's data, for other test samples.
        measured: what is measured.
        allow_imports: import the data set of its own that the run, or `changes`, may name.
        device: where PyTorch runs; None is where the run did, or what there is. onnxruntime runs on the processor.

    Returns:
        Plain values, which `dpap evaluate --json` writes.

    Raises:
        UserError: where there is no finished run, or its files or the data do not fit.
    """
    folder = finished(path)
    stored, config = read_config(folder, changes, allow_imports=allow_imports)
    data, notes = read_data(stored.data, config.data)
    kind = kind_of(stored.data) or SampleKind.of(data)
    threads = measured.threads or config.training.threads
    with tempfile.TemporaryDirectory() as temporary:
        with repeatable(threads):
            run = deploy(folder, config, kind, device)
            training = partial(_training, stored.data, config.data, data)
            found = list(
                candidates(
                    run,
                    data,
                    lambda: calibration_samples(training(), measured.calibration),
                    runtimes=tuple(measured.runtimes),
                    beside_dense=measured.rounds > 0,
                    folder=Path(temporary),
                )
            )
            usable = [each for each in found if isinstance(each, Candidate)]
            scores = [_scores(run, each, data) for each in usable if each.network not in (DENSE, SILENCED)]
            machine = describe_machine(run.device)
        # without the deterministic algorithms, which also fill memory that need not be
        with with_threads(threads):
            latency = _latency(usable, data, measured, run.device)
    recorded = _recorded(run, notes) if same_test_samples(stored.data, config.data) else None
    spiking = config.network.spiking
    return {
        "run": str(path),
        "network": config.network.layers,
        "spiking": spiking,
        "timesteps": (kind.timesteps or config.network.timesteps) if spiking else 1,
        "data": data.name,
        "class_names": [kind.name_of(number) for number in range(kind.classes)],
        "notes": [*data.notes, *notes],
        "machine": {**machine, **{name: _version(name) for name in ("dpap", "onnxruntime")}},
        "parameters": parameters(run.model),
        "recorded_accuracy": recorded,
        "scores": scores,
        "latency": latency,
        "left_out": {each.what: each.why for each in found if isinstance(each, LeftOut)},
    }


def _training(stored: DataConfig, now: DataConfig, data: DataBundle) -> DataBundle:
    """The data that the network was trained on, which may not be the data that it is evaluated on.

    Raises:
        UserError: where it is not found, or would have to be imported.
    """
    if stored.name == now.name:
        return data
    if ":" in stored.name:
        raise UserError(f"its ranges are measured on training data, and {stored.name!r} is code to import")
    own = replace(stored, root=now.root, cache=now.cache)
    return read_data(own, own)[0]


def _scores(run: Deployed, candidate: Candidate, data: DataBundle) -> Record:
    batches = data.test.batches(run.config.data.test_batch_size)
    loss_of = loss_function(run.config.training)
    score = scored(candidate.forward, batches, loss_of, candidate.device, run.kind.classes)
    return {
        "network": candidate.network,
        "runtime": candidate.runtime,
        **score.as_record(),
        "bytes": candidate.bytes,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _recorded(run: Deployed, notes: list[str]) -> float | None:
    """The accuracy that the run came to; None where its summary was taken away or, as `notes` then say, is damaged."""
    if not run.folder.summary.is_file():
        return None
    try:
        accuracy = run.folder.read_summary()["final_test_accuracy"]
    except UserError as error:
        notes.append(str(error))
        return None
    return accuracy if isinstance(accuracy, float) else None


def _latency(
    usable: Sequence[Candidate], data: DataBundle, measured: Measurements, device: torch.device
) -> list[Record]:
    """Times of every candidate at every batch size; ratios are to the first, the dense network."""
    if not (measured.rounds and usable):
        return []
    records = []
    for batch in measured.batches:
        x = samples_of(data.test, batch)
        calls = {each: partial(each.forward, x.to(each.device)) for each in usable}
        with torch.no_grad():
            seconds = alternate(calls, measured.rounds, device, mixed=True)
        records += [
            {
                "batch": batch,
                "network": each.network,
                "runtime": each.runtime,
                "milliseconds": row["milliseconds"],
                "samples_per_second": batch / row["milliseconds"] * 1e3,
                "speed_up": row["ratio"],
                "speed_up_quartiles": [row["low"], row["high"]],
                "speed_up_over": [usable[0].network, usable[0].runtime],
                "rounds": row["n"],
            }
            for each, row in compared(seconds, usable[0]).items()
        ]
    return records
