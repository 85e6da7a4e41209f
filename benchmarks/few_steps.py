"""Which criterion, where steps are few? The network and loop of docs/notebooks/choosing_on_digits.ipynb, over seeds.

    python benchmarks/few_steps.py                                        # 72 steps
    python benchmarks/few_steps.py --epochs 24 --end-epoch 14 --seeds 3   # four times as many

Seeds are of the initial weights. A tenth of the parameters stays, by whole units; scratch has as many.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import nn

import dpap
from dpap.experiment.machine import describe_machine

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "notebooks" / "choosing_on_digits.ipynb"
LAST = "rows = "
"""Begins the line of the notebook's first cell that trains; all before it is taken."""


def definitions(epochs: int) -> dict[str, Any]:
    """The notebook's data, network and loop, with so many epochs."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = "".join(next(cell["source"] for cell in cells if cell["cell_type"] == "code"))
    found: dict[str, Any] = {}
    exec(code.partition(LAST)[0], found)
    found["EPOCHS"] = epochs
    return found


def initial(model: nn.Module, seed: int) -> nn.Module:
    """The network with other weights."""
    torch.manual_seed(seed)
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
    return model


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=6, help="of 12 steps each")
    parser.add_argument("--end-epoch", type=int, default=4, help="by which all is pruned")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = definitions(given.epochs)
    build, trained = found["build"], found["trained"]
    print(f"machine: {describe_machine(torch.device('cpu'))}\n")
    print(
        f"| {given.epochs} epochs, n = {given.seeds} | test accuracy, % | parameters |\n| --- | --- | ---: |"
    )

    def row(name: str, width: float, config: dict[str, Any] | None) -> int:
        results = [
            trained(initial(build(width), seed), config and dpap.PruningConfig(seed=seed, **config))
            for seed in range(given.seeds)
        ]
        accuracies = [100 * accuracy for accuracy, *_ in results]
        spread = statistics.stdev(accuracies) if len(accuracies) > 1 else float("nan")
        stored = round(statistics.fmean(parameters for _, parameters, _ in results))
        print(f"| {name} | {statistics.fmean(accuracies):.1f} ± {spread:.1f} | {stored:,} |", flush=True)
        return stored

    target = {"target": 0.9, "target_of": "parameters", "end_epoch": given.end_epoch, "deaths_per_epoch": 3}
    row("dense", 1.0, None)
    aim = row("taylor_strength", 1.0, {"criterion": "taylor_strength", **target})
    for criterion in ("magnitude", "random_once"):
        row(criterion, 1.0, {"criterion": criterion, **target})
    count = found["parameters"]
    width = min((each / 50 for each in range(5, 50)), key=lambda one: abs(count(build(one)) - aim))
    row("scratch", width, None)


if __name__ == "__main__":
    main()
