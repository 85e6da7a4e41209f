"""How long pruning itself takes: finding the wiring, deaths within an epoch, its end, and the removal of what died.

    python benchmarks/surgery.py --keep-memory
    python benchmarks/surgery.py --network vgg --samples 8 --target-of macs
    python benchmarks/surgery.py --paper

Each round builds a network anew, lets a `dpap.Pruner` find its wiring on some samples, and trains three short epochs
while 60 % of the target's cost dies by the default rule, also in the middle of each; what is worth it is removed at the
epochs' ends (compact="auto", weighed as after an epoch of 50,000 images). From a second network of the round the same
share is removed at once, by `compact()`. A training step is the median of those of the dense network in the same round;
a death is what the step before it takes longer than the others of its epoch.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import torch
from steps import NETWORKS, ours
from timing import arguments_of, random_batch, report, set_up, synchronise, text_table, training_step
from torch import nn

import dpap
from dpap.models import NetworkConfig, build_network
from dpap.pruning.config import TargetOf

EPOCHS, STEPS, DEATHS = 3, 8, 2
VGG = (3, 32, 32), 64
"""Shape and batch of VGG16 of a quarter's width."""
IMAGES = 50_000
"""Of a whole epoch: `step()` weighs a removal against what it saves in another, and counts so many here."""


def timed(action: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """Result of an action, and seconds."""
    synchronise(device)
    start = time.perf_counter()
    result = action()
    synchronise(device)
    return result, time.perf_counter() - start


def built(name: str, device: torch.device) -> tuple[nn.Module, tuple[int, int, int], int]:
    """A network, the shape of its images, and its batch."""
    if name == "vgg":
        torch.manual_seed(0)
        return build_network(NetworkConfig("vgg16", neuron="relu", width=0.25), VGG[0]).to(device), *VGG
    _, shape, batch = NETWORKS[name]
    return ours(name, device), shape, batch


def prune(
    name: str,
    device: torch.device,
    samples: int,
    target_of: TargetOf,
    epochs: int,
    compact: str,
    paper: bool = False,
) -> dict[str, list[float]]:
    """Seconds of everything from staining to the last removal of one network."""
    model, shape, batch = built(name, device)
    images, labels = random_batch(batch, shape, device)
    optimizer = torch.optim.Adam(model.train().parameters())

    def train() -> list[float]:
        step = partial(training_step, model, optimizer, images, labels)
        taken = [timed(step, device)[1] for _ in range(STEPS)]
        pruner._forwards = IMAGES // batch
        return taken

    rule = partial(dpap.PruningConfig.paper, synapses=False) if paper else dpap.PruningConfig
    config = rule(
        target=0.6,
        target_of=target_of,
        start_epoch=0,
        end_epoch=epochs,
        deaths_per_epoch=DEATHS,
        observe_every=1,
        compact=compact,
    )
    pruner, staining = timed(lambda: dpap.Pruner(model, images[:samples], optimizer, config), device)
    seconds: dict[str, list[float]] = {
        "staining": [staining],
        "training": [],
        "deaths": [],
        "step": [],
        "removing step": [],
    }
    for epoch in range(epochs):
        steps = train()
        if epoch == 0:
            seconds["training"] += steps[1:]
        else:
            # in the first epoch nothing says how many steps it will have
            died = steps.pop(STEPS // DEATHS - 1)
            seconds["deaths"].append(died - statistics.median(steps))
        pruned, taken = timed(pruner.step, device)
        seconds["step" if pruned.compacted is None else "removing step"].append(taken)
    if compact == "manual":
        _, removal = timed(pruner.compact, device)
        seconds["compact"] = [removal]
    return seconds


def main() -> None:
    """Run the rounds and report."""
    parser = arguments_of(__doc__, rounds=5)
    parser.add_argument("--network", choices=(*NETWORKS, "vgg"), default="cifar")
    parser.add_argument("--paper", action="store_true", help="the paper's rule, of whole units alone")
    parser.add_argument("--target-of", choices=get_args(TargetOf), default="weights")
    parser.add_argument(
        "--samples", type=int, default=4, help="of the example inputs that are given to Pruner"
    )
    arguments = parser.parse_args()
    name, device = arguments.network, set_up(arguments)
    run = partial(prune, name, device, arguments.samples, arguments.target_of, paper=arguments.paper)
    run(1, "manual")
    taken: dict[str, list[float]] = {}
    multiples: dict[str, list[float]] = {}
    removals: list[int] = []
    for _ in range(arguments.rounds):
        both = [run(EPOCHS, "auto"), run(1, "manual")]
        step = statistics.median(both[0]["training"] + both[1]["training"])
        ends = both[0]["step"] + both[0]["removing step"]
        removals.append(len(both[0]["removing step"]))
        seconds = {
            "a training step": step,
            "staining (Pruner)": both[0]["staining"][0],
            "compact()": both[1]["compact"][0],
            "staining + compact()": both[1]["staining"][0] + both[1]["compact"][0],
            "deaths within an epoch": statistics.median(both[0]["deaths"]),
            "step(), nothing removed": statistics.median(both[0]["step"] + both[1]["step"]),
            "longest step(), auto": max(ends),
        }
        for each, value in seconds.items():
            taken.setdefault(each, []).append(value)
            multiples.setdefault(each, []).append(value / step)
    rows = {}
    for each, values in taken.items():
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
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
        "target_of": arguments.target_of,
    }
    report(
        f"surgery-{name}-{arguments.samples}-{arguments.target_of}",
        arguments,
        results,
        [text_table(head, lines)],
    )


if __name__ == "__main__":
    main()
