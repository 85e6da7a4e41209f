"""How long pruning itself takes: finding the wiring, an epoch's end, and the removal of what died.

    python benchmarks/surgery.py --keep-memory

Each round builds a network anew, lets a `dpap.Pruner` find its wiring on some samples, and trains three short epochs
while 60% of the weights die by whole units; what is worth it is removed at the epochs' ends (compact="auto", weighed
as after an epoch of 50,000 images). From a second network of the round the same share is removed at once, by
`compact()`. A training step is the median of those of the dense network in the same round.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from steps import NETWORKS, ours
from timing import arguments_of, random_batch, report, set_up, synchronise, text_table, training_step

import dpap

EPOCHS, STEPS = 3, 3
IMAGES = 50_000
"""Of a whole epoch: `step()` weighs a removal against what it saves in another, and counts so many here."""


def timed(action: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """Result of an action, and seconds."""
    synchronise(device)
    start = time.perf_counter()
    result = action()
    synchronise(device)
    return result, time.perf_counter() - start


def prune(name: str, device: torch.device, samples: int, epochs: int, compact: str) -> dict[str, list[float]]:
    """Seconds of everything from staining to the last removal of one network."""
    _, shape, batch = NETWORKS[name]
    images, labels = random_batch(batch, shape, device)
    model = ours(name, device).train()
    optimizer = torch.optim.Adam(model.parameters())

    def train() -> list[float]:
        step = partial(training_step, model, optimizer, images, labels)
        taken = [timed(step, device)[1] for _ in range(STEPS)]
        pruner._recorder.presentations = IMAGES // batch
        return taken

    config = dpap.PruningConfig.paper(
        target=0.6, start_epoch=0, end_epoch=epochs, synapses=False, compact=compact
    )
    pruner, staining = timed(lambda: dpap.Pruner(model, images[:samples], optimizer, config), device)
    seconds: dict[str, list[float]] = {
        "staining": [staining],
        "training": [],
        "step": [],
        "removing step": [],
    }
    for epoch in range(epochs):
        steps = train()
        if epoch == 0:
            seconds["training"] += steps[1:]
        pruned, taken = timed(pruner.step, device)
        seconds["step" if pruned.compacted is None else "removing step"].append(taken)
    if compact == "manual":
        _, removal = timed(pruner.compact, device)
        seconds["compact"] = [removal]
    return seconds


def main() -> None:
    """Run the rounds and report."""
    parser = arguments_of(__doc__, rounds=5)
    parser.add_argument("--network", choices=tuple(NETWORKS), default="cifar")
    parser.add_argument(
        "--samples", type=int, default=4, help="of the example inputs that are given to Pruner"
    )
    arguments = parser.parse_args()
    name, device = arguments.network, set_up(arguments)
    prune(name, device, arguments.samples, 1, "manual")
    taken: dict[str, list[float]] = {}
    multiples: dict[str, list[float]] = {}
    removals: list[int] = []
    for _ in range(arguments.rounds):
        both = [
            prune(name, device, arguments.samples, EPOCHS, "auto"),
            prune(name, device, arguments.samples, 1, "manual"),
        ]
        step = statistics.median(both[0]["training"] + both[1]["training"])
        ends = both[0]["step"] + both[0]["removing step"]
        removals.append(len(both[0]["removing step"]))
        seconds = {
            "a training step": step,
            "staining (Pruner)": both[0]["staining"][0],
            "compact()": both[1]["compact"][0],
            "staining + compact()": both[1]["staining"][0] + both[1]["compact"][0],
            "step(), nothing removed": statistics.median(both[0]["step"] + both[1]["step"]),
            "longest step(), auto": max(ends),
        }
        for each, value in seconds.items():
            taken.setdefault(each, []).append(value)
            multiples.setdefault(each, []).append(value / step)
    rows = {}
    for each, values in taken.items():
        low, middle, high = statistics.quantiles(values, n=4)
        rows[each] = {
            "seconds": middle,
            "low": low,
            "high": high,
            "longest": max(values),
            "training_steps": statistics.median(multiples[each]),
            "n": len(values),
        }
    lines = [
        [
            each,
            f"{row['seconds']:.3f}",
            f"{row['low']:.3f}-{row['high']:.3f}",
            f"{row['longest']:.3f}",
            f"{row['training_steps']:.2f}",
            f"{row['n']}",
        ]
        for each, row in rows.items()
    ]
    head = [name, "seconds", "quartiles", "longest", "in training steps", "n"]
    results = {
        "rows": rows,
        "removals_per_life": removals,
        "epochs": EPOCHS,
        "batches_per_epoch": STEPS,
    }
    report(f"surgery-{name}-{arguments.samples}", arguments, results, [text_table(head, lines)])


if __name__ == "__main__":
    main()
