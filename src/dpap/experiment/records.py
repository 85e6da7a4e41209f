"""The lines of metrics.jsonl, and the epoch that a protocol chooses among them."""

from collections.abc import Sequence
from dataclasses import asdict

from dpap.experiment.loop import Score
from dpap.experiment.sealed import Record
from dpap.pruning.reports import PruneReport

AS_SPARSE = 0.01  # differences of sparsity up to this are none
PROTOCOLS = {
    "last": "the last epoch's network",
    "validation": "the network of the epoch that was best on held-out training data",
    "paper": "the network of the epoch that was best on the test data, as the paper's tables do, which flatters",
}
"""The network that each protocol reports."""


def epoch_record(
    *,
    epoch: int,
    train: Score,
    test: Score,
    validation: Score | None,
    rate: float,
    report: PruneReport | None,
    seconds: float,
    prune_seconds: float,
    evaluate_seconds: float,
) -> Record:
    """One epoch, counted from 1, as a line of metrics.jsonl; without a report, of a dense run."""
    compacted = report.compacted if report is not None else None
    layers = report.layers if report is not None else ()
    return {
        "epoch": epoch,
        "train_loss": train.loss,
        "train_accuracy": train.accuracy,
        "test_loss": test.loss,
        "test_accuracy": test.accuracy,
        "validation_accuracy": validation.accuracy if validation is not None else None,
        "learning_rate": rate,
        "sparsity": report.sparsity if report is not None else 0.0,
        "timestep_sparsity": report.timestep_sparsity if report is not None else 0.0,
        "target_of": report.target_of if report is not None else None,
        "achieved": report.achieved if report is not None else None,
        "target": report.target if report is not None else None,
        "epsilon": report.epsilon if report is not None else {},
        "seconds": seconds,
        "evaluate_seconds": evaluate_seconds,
        "prune_seconds": prune_seconds,
        "compacted": asdict(compacted) if compacted is not None else None,
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "units": layer.units,
                "alive": layer.alive,
                "weights": layer.weights,
                "weights_alive": layer.weights_alive,
                "timesteps_alive": layer.timesteps_alive,
            }
            for layer in layers
        ],
    }


def choose(records: Sequence[Record], protocol: str) -> Record:
    """The epoch of the network that is reported and kept.

    Under "last" the last; else the one with the highest score on the split that the protocol names. An epoch that is
    notably sparser than those before it replaces them all: an early, denser network is no result of pruning. Ties
    keep the earlier epoch.
    """
    kept = records[0]
    score = "validation_accuracy" if protocol == "validation" else "test_accuracy"
    for record in records[1:]:
        sparser = any(record[name] > kept[name] + AS_SPARSE for name in ("sparsity", "timestep_sparsity"))
        if protocol == "last" or sparser or record[score] > kept[score]:
            kept = record
    return kept
