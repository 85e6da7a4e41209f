"""A whole training, dense and pruned: the wall time of both, and what they learn.

    python benchmarks/runs.py --recipe mnist_snn_2conv2fc_fast --data.root DATA

Both twins have the same seed, batches and schedule, and train in turn, an epoch each, in one process. Seconds are of
training and pruning, removal included; evaluation is not counted. An interrupted run goes on where it stopped.
"""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser

from dpap.experiment.config import ExperimentConfig, add_experiment_flags, config_from
from dpap.experiment.machine import describe_machine
from dpap.experiment.progress import Quiet
from dpap.experiment.run_folder import RunFolder
from dpap.experiment.sealed import read_lines
from dpap.experiment.tables import text_table
from dpap.experiment.train import resume, train


class _OneEpoch(Quiet):
    """Stops a run after its next epoch, by an interruption that it can be resumed from."""

    def end_epoch(self, record: dict[str, Any], epochs: int, left: float) -> None:
        """Stop, unless it was the last."""
        if record["epoch"] < epochs:
            raise KeyboardInterrupt


def _train_one_epoch(config: ExperimentConfig) -> dict[str, Any] | None:
    """Run one more epoch; returns the summary once the run is finished."""
    folder = RunFolder(config.folder)
    try:
        if folder.holds_a_run():
            return resume(folder.path, progress=_OneEpoch())
        return train(config, progress=_OneEpoch())
    except KeyboardInterrupt:
        return None


def _seconds(config: ExperimentConfig) -> list[float]:
    return [each["seconds"] + each["prune_seconds"] for each in read_lines(RunFolder(config.folder).metrics)]


def main() -> None:
    """Train the twins and compare."""
    parser = ArgumentParser(description=__doc__)
    add_experiment_flags(parser)
    parser.add_argument(
        "--results", default="benchmarks/results", help="folder of the JSON file and the runs"
    )
    parsed = parser.parse_args()
    config = config_from(parser, parsed)
    results = Path(parsed.results)
    folder = results / "runs" / f"{config.name}-seed{config.seed}"
    twins = {
        "dense": replace(config, prune=False, out=str(folder / "dense")),
        "DPAP": replace(config, prune=True, out=str(folder / "dpap")),
    }
    summaries: dict[str, dict[str, Any]] = {}
    while len(summaries) < len(twins):
        for name, twin in twins.items():
            if name not in summaries and (summary := _train_one_epoch(twin)) is not None:
                summaries[name] = summary
        print(", ".join(f"{name} {len(_seconds(twin))} epochs" for name, twin in twins.items()), flush=True)
    seconds = {name: _seconds(twin) for name, twin in twins.items()}
    rows = [
        [
            name,
            f"{summary['final_test_accuracy']:.2%}",
            f"{summary['sparsity']:.1%}",
            f"{summary['after']['parameters']:,}",
            f"{summary['after']['macs'] / summaries['dense']['after']['macs']:.2f}",
            f"{sum(seconds[name]) / sum(seconds['dense']):.2f}",
            f"{min(seconds[name][-3:]) / min(seconds['dense'][-3:]):.2f}",
        ]
        for name, summary in summaries.items()
    ]
    head = [
        "twin",
        "accuracy",
        "pruned",
        "parameters",
        "MACs",
        "wall time, of dense",
        "last epochs, of dense",
    ]
    if config.training.threads is not None:
        torch.set_num_threads(config.training.threads)
    machine = describe_machine(
        torch.device("cpu" if config.training.device == "auto" else config.training.device)
    )
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    print(text_table(head, rows))
    document = {
        "config": config.as_dict(),
        "machine": machine,
        "seconds": seconds,
        "summaries": summaries,
        "finished": time.time(),
    }
    path = results / f"runs-{config.name}-seed{config.seed}.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(path)


if __name__ == "__main__":
    main()
