"""A run from its configuration to its summary, and on from wherever it stopped.

An epoch is: train on every batch, step the pruner, evaluate, write the record, checkpoint. What lies past the last
checkpoint is computed again, to the same bits.
"""

import os
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dpap.anatomy import find_wiring
from dpap.data import DataBundle, Split, load_data
from dpap.experiment.checkpoint import (
    belonging,
    copy_checkpoint,
    epoch_seed,
    read_checkpoint,
    read_last,
    write_checkpoint,
)
from dpap.experiment.config import ExperimentConfig, complete_from, load_run_config
from dpap.experiment.errors import Diverged, UserError, blame
from dpap.experiment.finish import finish
from dpap.experiment.learner import Learner, apply_memory_format, build_learner, example_of, grows_with
from dpap.experiment.locks import only_writer
from dpap.experiment.logs import Log, check_log, open_log
from dpap.experiment.loop import Score, evaluate, train_epoch
from dpap.experiment.losses import loss_function
from dpap.experiment.machine import (
    describe_machine,
    enough_memory,
    has_bfloat16,
    has_room,
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
from dpap.experiment.processes import TIMEOUT, everywhere, is_first, leave, lost, part, processes, shown
from dpap.experiment.progress import Quiet
from dpap.experiment.records import choose, epoch_record
from dpap.experiment.run_folder import RunFolder, now
from dpap.experiment.schedule import learning_rate
from dpap.experiment.sealed import Record, append, read_json
from dpap.pruning.distributed import Ranks


def train(
    config: ExperimentConfig,
    *,
    overwrite: bool = False,
    progress: Quiet | None = None,
    command: str = "",
    timeout: float = TIMEOUT,
) -> Record:
    """Run a configuration from its first epoch to its summary.

    Args:
        config: the run; it is written to `config.folder`.
        overwrite: replace a run that lies there.
        progress: prints what happens.
        command: written down, so that others can repeat it.
        timeout: seconds that the processes of `torchrun` wait for each other; all but the first return nothing.

    Raises:
        UserError: when data, network or folder do not fit the configuration.
        Diverged: when a loss is not finite; the last checkpoint stays.
    """
    check_log(config.training)
    folder = RunFolder(config.folder)
    progress = shown(progress)
    with (
        repeatable(config.training.threads),
        processes(config.training.device, timeout) as (ranks, device),
        ExitStack() as held,
    ):
        everywhere(ranks, "begin the run", lambda: folder.check_free(overwrite))
        run = _prepare(config, folder, progress, ranks, device)

        def begin() -> None:
            facts = _facts(run, command)
            if ranks.rank == 0:
                folder.make()
                held.enter_context(only_writer(folder.path))
                folder.check_free(overwrite)
                folder.begin(config.as_yaml(), facts)

        everywhere(ranks, "begin the run", begin)
        return _run_epochs(run, [])


def resume(
    path: Path | str,
    *,
    progress: Quiet | None = None,
    allow_imports: bool = False,
    timeout: float = TIMEOUT,
) -> Record:
    """Go on with a run that stopped, to the weights that it would have had without the stop.

    A finished run is left alone, once its files are checked, and its summary returned; where a file of it is damaged or
    missing that the checkpoint can give again, it is finished again.

    Args:
        path: the run folder.
        progress: prints what happens.
        allow_imports: import the data set of its own that the run may name.
        timeout: see `train`; a run goes on in any number of processes.

    Raises:
        UserError: when there is no run, its files were changed since its checkpoint, or it names code to import and
            that is not allowed.
    """
    folder = RunFolder(Path(path))
    if not folder.holds_a_run():
        raise UserError(f"{folder.path} holds no run, for it has no {folder.config.name}")
    progress = shown(progress)
    damaged = what_is_damaged(folder) if folder.summary.exists() else None
    finished = folder.summary.exists() and damaged is None
    if damaged is not None:
        progress.message(f"{damaged}; the run is finished again from its checkpoint")
    # of a run that is finished nothing is imported
    stored = load_run_config(folder.config, allow_imports=allow_imports or finished)
    config = replace(stored, out=str(folder.path), structure=_structure_now(stored, folder.path))
    check_configuration(folder, config, progress.message)
    if finished:
        return read_json(folder.summary) if is_first() else {}
    check_log(config.training)
    with (
        repeatable(config.training.threads),
        processes(config.training.device, timeout) as (ranks, device),
        ExitStack() as held,
    ):
        if ranks.rank == 0:
            held.enter_context(only_writer(folder.path))
            folder.sweep()
        run = _prepare(config, folder, progress, ranks, device)
        return _run_epochs(
            run, everywhere(ranks, "read the checkpoint", lambda: _restore(run), first_alone=True)
        )


@dataclass
class _Run:
    """What every epoch needs."""

    config: ExperimentConfig
    folder: RunFolder
    data: DataBundle
    learner: Learner
    progress: Quiet
    ranks: Ranks

    @property
    def writes(self) -> bool:
        """Whether this process writes the files: the first one."""
        return self.ranks.rank == 0


def _prepare(
    config: ExperimentConfig, folder: RunFolder, progress: Quiet, ranks: Ranks, device: torch.device
) -> _Run:
    keep_freed_memory()
    if config.training.precision == "bfloat16" and not has_bfloat16(device):
        progress.message(
            f"this machine has no bfloat16 arithmetic ({device}): it is emulated, several times slower than "
            "--training.precision float32"
        )

    def read() -> DataBundle:
        with (
            blame("the data"),
            enough_memory("the data", "data.timesteps, data.train_limit or data.test_limit"),
        ):
            data = load_data(config.data)
        smallest = min(config.data.batch_size, len(data.train))
        if smallest < ranks.number:
            raise UserError(f"{ranks.number} processes cannot share batches of {smallest} samples; use fewer")
        return data

    data = everywhere(ranks, "read the data", read, first_alone=True)
    if has_room(device, data.nbytes):
        data = data.to(device)
    learner = everywhere(ranks, "build the network", lambda: build_learner(config, data, device))
    learner.share(ranks)
    return _Run(config, folder, data, learner, progress, ranks)


def _restore(run: _Run) -> list[Record]:
    """Bring the last whole epoch back; returns the records up to it."""
    folder, config = run.folder, run.config
    state = read_last(folder, run.progress.message)
    with belonging(folder.checkpoint):
        if state is not None:
            refuse_changes(
                config, complete_from(state["config"], f"the configuration in {folder.checkpoint}")
            )
            run.learner.restore(state)
        # the first process mends, and the others find it done
        records = mend_lines(folder, state, run.progress.message)
        chosen = bool(records) and run.writes and _copy_if_chosen(run, records)
    if records and run.writes and not chosen and config.protocol != "last":
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
    log = open_log(config.training, folder, records) if run.writes else Log()
    try:
        for epoch in range(len(records) + 1, epochs + 1):
            started = time.perf_counter()
            with lost(run.ranks, _advice(folder, epoch)), enough_memory("training", _sizes(config)):
                record = _epoch(run, epoch)
            records.append(record)
            if not run.writes:
                continue
            survival: Record | None = None
            if run.learner.pruner is not None:
                survival = {"epoch": epoch, "layers": run.learner.pruner.survival()}
                append(folder.survival, survival)
            append(folder.metrics, record)
            state = {"epoch": epoch, "config": config.as_dict(), **lines_of(records, survival)}
            write_checkpoint(folder.checkpoint, state | run.learner.state(), previous=folder.previous)
            _copy_if_chosen(run, records)
            log.epoch(record, survival)
            seconds.append(time.perf_counter() - started)
            progress.end_epoch(record, epochs, sum(seconds) / len(seconds) * (epochs - epoch))
        if run.ranks.many:
            with lost(run.ranks, _advice(folder, epochs + 1)):
                leave(run.ranks)
            if not run.writes:
                return {}
            _be_alone(run)
        return finish(config, folder, run.data, run.learner, records, progress)
    finally:
        log.close()
        progress.close()


def _be_alone(run: _Run) -> None:
    """Go on in this process alone, from the checkpoint."""
    if run.learner.pruner is not None:
        run.learner.pruner.detach()
    run.learner.wrapped = None
    run.learner = build_learner(run.config, run.data, run.learner.device)
    run.learner.restore(read_checkpoint(run.folder.checkpoint))


def _advice(folder: RunFolder, epoch: int) -> str:
    if epoch == 1:
        return "There is no checkpoint yet: start the run again with --overwrite"
    return f"The state after epoch {epoch - 1} is in {folder.checkpoint}: go on with {folder.resume_flag}"


def _sizes(config: ExperimentConfig) -> str:
    """What the memory of an epoch grows with."""
    data, network = config.data, grows_with(config.network, running=True)
    return f"data.batch_size (now {data.batch_size}), data.test_batch_size (now {data.test_batch_size}), {network}"


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
    seed, ranks = epoch_seed(config.seed, epoch), run.ranks
    # what is drawn in the network, such as dropout, is drawn for each part of the batch
    torch.manual_seed(seed if ranks.rank == 0 else epoch_seed(seed, ranks.rank))
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
            learner.trained,
            data.train.batches(size, shuffle_seed=seed, drop_last=drop_last, part=part(ranks)),
            learner.optimizer,
            loss_of,
            rates,
            training.gradient_clip,
            learner.device,
            progress.batch,
            getattr(torch, training.precision),
            ranks,
        )
        learner.take_buffers(ranks)
        trained = time.perf_counter()
        report = learner.pruner.step() if learner.pruner is not None else None
        pruned = time.perf_counter()
        test_size = config.data.test_batch_size

        def scored(split: Split) -> Score:
            batches = split.batches(test_size, part=part(ranks))
            return evaluate(learner.model, batches, loss_of, learner.device, ranks)

        test = scored(data.test)
        validation = scored(data.validation) if data.validation is not None else None
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
        **({"processes": run.ranks.number} if run.ranks.many else {}),
        "seed": config.seed,
        "config": config.as_yaml(),
        "command": command,
        "protocol": config.protocol,
        "started": now(),
        "wiring": wiring.table(width=200),
    }
