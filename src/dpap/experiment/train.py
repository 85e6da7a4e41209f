"""A run from its configuration to its summary, and on from wherever it stopped.

An epoch is: train on every batch, step the pruner, evaluate, write the record, checkpoint. What lies past the last
checkpoint is computed again, to the same bits.
"""

import os
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dpap.anatomy import find_wiring
from dpap.data import DataBundle, load_data
from dpap.experiment.checkpoint import (
    copy_checkpoint,
    epoch_seed,
    read_checkpoint,
    read_last,
    write_checkpoint,
)
from dpap.experiment.config import ExperimentConfig, complete, load_run_config
from dpap.experiment.errors import Diverged, UserError, blame
from dpap.experiment.finish import finish
from dpap.experiment.learner import Learner, apply_memory_format, build_learner, example_of
from dpap.experiment.locks import only_writer
from dpap.experiment.loop import evaluate, train_epoch
from dpap.experiment.losses import loss_function
from dpap.experiment.machine import (
    choose_device,
    describe_machine,
    has_bfloat16,
    keep_freed_memory,
    repeatable,
)
from dpap.experiment.mending import (
    check_configuration,
    lines_of,
    mend_lines,
    refuse_changes,
    what_is_damaged,
)
from dpap.experiment.progress import Quiet
from dpap.experiment.records import choose, epoch_record
from dpap.experiment.run_folder import RunFolder, now
from dpap.experiment.schedule import learning_rate
from dpap.experiment.sealed import Record, append, read_json


def train(
    config: ExperimentConfig, *, overwrite: bool = False, progress: Quiet | None = None, command: str = ""
) -> Record:
    """Run a configuration from its first epoch to its summary.

    Args:
        config: the run; it is written to `config.folder`.
        overwrite: replace a run that lies there.
        progress: prints what happens.
        command: written down, so that others can repeat it.

    Raises:
        UserError: when data, network or folder do not fit the configuration.
        Diverged: when a loss is not finite; the last checkpoint stays.
    """
    folder = RunFolder(config.folder)
    folder.check_free(overwrite)
    with repeatable(config.training.threads):
        run = _prepare(config, folder, progress)
        folder.make()
        with only_writer(folder.path):
            folder.check_free(overwrite)
            folder.begin(config.as_yaml(), _facts(run, command))
            return _run_epochs(run, [])


def resume(path: Path | str, *, progress: Quiet | None = None, allow_imports: bool = False) -> Record:
    """Go on with a run that stopped, to the weights that it would have had without the stop.

    A finished run is left alone, and its summary returned; where a file of it is damaged or missing that the checkpoint
    can give again, it is finished again.

    Args:
        path: the run folder.
        progress: prints what happens.
        allow_imports: import the data set of its own that the run may name.

    Raises:
        UserError: when there is no run, its files were changed since its checkpoint, or it names code to import and
            that is not allowed.
    """
    folder = RunFolder(Path(path))
    if not folder.holds_a_run():
        raise UserError(f"{folder.path} holds no run, for it has no {folder.config.name}")
    progress = progress or Quiet()
    if folder.summary.exists():
        damaged = what_is_damaged(folder)
        if damaged is None:
            return read_json(folder.summary)
        progress.message(f"{damaged}; the run is finished again from its checkpoint")
    stored = load_run_config(folder.config, allow_imports=allow_imports)
    config = replace(stored, out=str(folder.path), structure=_structure_now(stored, folder.path))
    check_configuration(folder, config, progress.message)
    with repeatable(config.training.threads), only_writer(folder.path):
        folder.sweep()
        run = _prepare(config, folder, progress)
        return _run_epochs(run, _restore(run))


@dataclass
class _Run:
    """What every epoch needs."""

    config: ExperimentConfig
    folder: RunFolder
    data: DataBundle
    learner: Learner
    progress: Quiet


def _prepare(config: ExperimentConfig, folder: RunFolder, progress: Quiet | None) -> _Run:
    device = choose_device(config.training.device)
    progress = progress or Quiet()
    keep_freed_memory()
    if config.training.precision == "bfloat16" and not has_bfloat16(device):
        progress.message(
            f"this machine has no bfloat16 arithmetic ({device}): it is emulated, several times slower than "
            "--training.precision float32"
        )
    with blame("the data"):
        data = load_data(config.data)
    return _Run(config, folder, data, build_learner(config, data, device), progress)


def _restore(run: _Run) -> list[Record]:
    """Bring the last whole epoch back; returns the records up to it."""
    folder, config = run.folder, run.config
    state = read_last(folder, run.progress.message)
    if state is not None:
        refuse_changes(config, complete(state["config"]))
        run.learner.restore(state)
    records = mend_lines(folder, state, run.progress.message)
    if records and not _copy_if_chosen(run, records) and config.protocol != "last":
        try:
            read_checkpoint(folder.kept)
        except UserError as error:
            run.progress.message(f"{error}; unless a later epoch is chosen the run cannot be finished")
    run.progress.message(f"going on after epoch {len(records)}")
    return records


def _run_epochs(run: _Run, records: list[Record]) -> Record:
    """Run the epochs that `records` lacks, then finish."""
    config, folder, progress = run.config, run.folder, run.progress
    epochs = config.training.epochs
    seconds: deque[float] = deque(maxlen=5)
    try:
        for epoch in range(len(records) + 1, epochs + 1):
            started = time.perf_counter()
            record = _epoch(run, epoch)
            survival: Record | None = None
            if run.learner.pruner is not None:
                survival = {"epoch": epoch, "layers": run.learner.pruner.survival()}
                append(folder.survival, survival)
            append(folder.metrics, record)
            records.append(record)
            state = {"epoch": epoch, "config": config.as_dict(), **lines_of(records, survival)}
            write_checkpoint(folder.checkpoint, state | run.learner.state(), previous=folder.previous)
            _copy_if_chosen(run, records)
            seconds.append(time.perf_counter() - started)
            progress.end_epoch(record, epochs, sum(seconds) / len(seconds) * (epochs - epoch))
        return finish(config, folder, run.data, run.learner, records, progress)
    finally:
        progress.close()


def _copy_if_chosen(run: _Run, records: list[Record]) -> bool:
    """Copy the last checkpoint where the protocol would choose its epoch so far; whether it does."""
    protocol = run.config.protocol
    if protocol == "last" or choose(records, protocol)["epoch"] != records[-1]["epoch"]:
        return False
    # after an interruption it is copied again: the copy may be what was interrupted
    copy_checkpoint(run.folder.checkpoint, run.folder.kept)
    return True


def _epoch(run: _Run, epoch: int) -> Record:
    """Train, prune and evaluate for one epoch; returns its line of metrics.jsonl."""
    config, data, learner, progress = run.config, run.data, run.learner, run.progress
    training, loss_of = config.training, loss_function(config.training)
    seed = epoch_seed(config.seed, epoch)
    torch.manual_seed(seed)
    size = config.data.batch_size
    drop_last = len(data.train) >= size  # a smaller last batch, of other samples in each epoch
    batches = data.train.number_of_batches(size, drop_last=drop_last)
    steps = range((epoch - 1) * batches, epoch * batches)
    rates = [learning_rate(training, step, batches) for step in steps]
    progress.begin_epoch(epoch, training.epochs, batches)
    apply_memory_format(learner.model, training)
    started = time.perf_counter()
    try:
        score = train_epoch(
            learner.model,
            data.train.batches(size, shuffle_seed=seed, drop_last=drop_last),
            learner.optimizer,
            loss_of,
            rates,
            training.gradient_clip,
            learner.device,
            progress.batch,
            getattr(torch, training.precision),
        )
        trained = time.perf_counter()
        report = learner.pruner.step() if learner.pruner is not None else None
        pruned = time.perf_counter()
        test_size = config.data.test_batch_size
        test = evaluate(learner.model, data.test.batches(test_size), loss_of, learner.device)
        validation = None
        if data.validation is not None:
            validation = evaluate(learner.model, data.validation.batches(test_size), loss_of, learner.device)
    except Diverged as error:
        raise Diverged(
            f"{error} (epoch {epoch}). Try a smaller --training.learning_rate (now {training.learning_rate:g}), "
            "--training.gradient_clip 1 or some --training.warmup_epochs. "
            + (
                f"The state after epoch {epoch - 1} is in {run.folder.checkpoint}"
                if epoch > 1
                else "There is no checkpoint yet"
            )
        ) from error
    return epoch_record(
        epoch=epoch,
        train=score,
        test=test,
        validation=validation,
        rate=rates[-1],
        report=report,
        seconds=trained - started,
        prune_seconds=pruned - trained,
        evaluate_seconds=time.perf_counter() - pruned,
    )


def _structure_now(stored: ExperimentConfig, folder: Path) -> str | None:
    """Where the structure of a run is: beside its folder as before, where both were moved."""
    if stored.structure is None:
        return None
    beside = Path(os.path.normpath(folder / os.path.relpath(stored.structure, stored.folder)))
    return str(beside) if beside.is_file() else stored.structure


def _facts(run: _Run, command: str) -> Record:
    config, data, learner = run.config, run.data, run.learner
    if learner.pruner is not None:
        wiring = learner.pruner.wiring
    else:
        wiring = find_wiring(learner.model, (example_of(data, learner.device),))
    spiking = config.network.spiking
    return {
        "name": config.name,
        "network": config.network.layers,
        "dataset": data.name,
        "data": data.describe(),
        "spiking": spiking,
        "timesteps": (data.timesteps or config.network.timesteps) if spiking else 1,
        "machine": describe_machine(learner.device),
        "seed": config.seed,
        "config": config.as_yaml(),
        "command": command,
        "protocol": config.protocol,
        "started": now(),
        "wiring": wiring.table(width=200),
    }
