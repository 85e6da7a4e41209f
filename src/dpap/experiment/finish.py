"""The end of a run: the kept network is compacted, saved, read back, measured and summed up."""

import math
from collections.abc import Sequence

from dpap.data import DataBundle
from dpap.experiment.checkpoint import read_checkpoint
from dpap.experiment.config import ExperimentConfig
from dpap.experiment.costs import costs, latency_records
from dpap.experiment.errors import UserError
from dpap.experiment.learner import Learner, apply_memory_format, build_learner, build_model
from dpap.experiment.loop import evaluate
from dpap.experiment.losses import loss_function
from dpap.experiment.progress import Quiet
from dpap.experiment.records import choose
from dpap.experiment.run_folder import RunFolder, now
from dpap.experiment.sealed import Record, write_json
from dpap.experiment.spikes import spikes_record
from dpap.metrics import pruned_energy
from dpap.surgery import CompactionError
from dpap.surgery.storage import load, save


def finish(
    config: ExperimentConfig,
    folder: RunFolder,
    data: DataBundle,
    learner: Learner,
    records: Sequence[Record],
    progress: Quiet,
) -> Record:
    """Write model.safetensors, spikes.json of a spiking network, and summary.json; returns the summary.

    Args:
        config: of the run.
        folder: of the run.
        data: its test split scores the network that is kept.
        learner: after the last epoch.
        records: of all epochs.
        progress: gets a message when the dead could not be removed.

    Raises:
        RuntimeError: when the network that is read back has another score than the one that was saved.
    """
    device, loss_of = learner.device, loss_function(config.training)
    kept = choose(records, config.protocol)
    if kept is not records[-1]:
        learner = build_learner(config, data, device)
        state = read_checkpoint(folder.kept)
        if state["epoch"] != kept["epoch"]:
            raise UserError(
                f"{folder.kept} holds epoch {state['epoch']}, expected {kept['epoch']}, which the protocol "
                f"{config.protocol!r} chooses: it was changed; start the run again with --overwrite"
            )
        learner.restore(state)
    pruner = learner.pruner
    if pruner is not None:
        try:
            pruner.compact()
        except CompactionError as error:
            progress.message(f"the dead stay in the network as zeros: {error}")
        pruner.detach()
    size = config.data.test_batch_size
    apply_memory_format(learner.model, config.training)
    saved = evaluate(learner.model, data.test.batches(size), loss_of, device)
    save(learner.model, folder.model)
    dense, fresh = build_model(config, data, device), build_model(config, data, device)
    before = costs(dense, data, device, config.network.spiking)
    load(folder.model, fresh)
    apply_memory_format(fresh, config.training)
    read = evaluate(fresh, data.test.batches(size), loss_of, device)
    if read != saved:
        raise RuntimeError(f"{folder.model} does not hold the network that was saved: {read} is not {saved}")
    after = costs(fresh, data, device, config.network.spiking)
    apply_memory_format(dense, config.training)
    for cost, seconds in zip((before, after), latency_records((dense, fresh), data, device), strict=True):
        cost.update(seconds)
    after["energy"] = pruned_energy(before["energy"], kept["sparsity"], kept["timestep_sparsity"])
    spikes = spikes_record(fresh, data, device)
    if spikes is None:
        folder.spikes.unlink(missing_ok=True)
    else:
        write_json(folder.spikes, spikes)
    best = max(records, key=lambda record: (record["test_accuracy"], -record["epoch"]))
    summary = {
        "epochs": len(records),
        "best_epoch": best["epoch"],
        "best_test_accuracy": best["test_accuracy"],
        "final_epoch": kept["epoch"],
        "final_test_accuracy": read.accuracy,
        "protocol": config.protocol,
        "sparsity": kept["sparsity"],
        "timestep_sparsity": kept["timestep_sparsity"],
        "target_of": kept["target_of"],
        "achieved": kept["achieved"],
        "seconds_training": math.fsum(record["seconds"] for record in records),
        "model_bytes": folder.model.stat().st_size,
        "before": before,
        "after": after,
        "finished": now(),
    }
    write_json(folder.summary, summary)
    return summary
