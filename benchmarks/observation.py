"""What observing a network costs: a training step with and without it.

    python benchmarks/observation.py --network mnist --every 1 2 4

The same network is stepped bare and while a `dpap.Pruner` observes every n-th batch; a round is as many steps as lie
between two observations. The share is of the bare step. `dpap.PruningConfig.observe_every` is the n, 4 by default.
"""

from collections.abc import Callable

import torch
from steps import NETWORKS, ours
from timing import (
    alternate,
    arguments_of,
    compared,
    random_batch,
    report,
    set_up,
    text_table,
    training_step,
)
from torch import Tensor, nn

import dpap


def stepper(
    model: nn.Module, images: Tensor, labels: Tensor, every: int | None, steps: int
) -> Callable[[], None]:
    """Runs `steps` training steps of a network, observed every n-th time or not at all."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    if every is not None:
        # the network's hooks keep the pruner
        config = dpap.PruningConfig.paper(target=0.6, end_epoch=20, observe_every=every)
        dpap.Pruner(model, images[:4], optimizer, config)
    model.train()

    def run() -> None:
        for _ in range(steps):
            training_step(model, optimizer, images, labels)

    return run


def main() -> None:
    """Measure and report."""
    parser = arguments_of(__doc__, rounds=20)
    parser.add_argument("--network", choices=NETWORKS, nargs="+", default=list(NETWORKS))
    parser.add_argument("--every", type=int, nargs="+", default=[1, 4], help="observe every n-th batch")
    arguments = parser.parse_args()
    device = set_up(arguments)
    results = {}
    rows = []
    for name in arguments.network:
        _, shape, batch = NETWORKS[name]
        images, labels = random_batch(batch, shape, device)
        for every in arguments.every:
            pair = {
                "bare": stepper(ours(name, device), images, labels, None, every),
                "observed": stepper(ours(name, device), images, labels, every, every),
            }
            steps = compared(alternate(pair, arguments.rounds, device), "bare")
            cost = {key: 1 / steps["observed"][key] - 1 for key in ("ratio", "low", "high")}
            results[f"{name} every {every}"] = {"steps": steps, "cost": cost}
            bounds = f"{cost['high']:+.1%} to {cost['low']:+.1%}"
            step = f"{steps['bare']['milliseconds'] / every:.1f}"
            rows.append([name, f"{every}", step, f"{cost['ratio']:+.1%}", bounds, f"{arguments.rounds}"])
    table = text_table(["network", "observed every", "ms a step", "cost", "quartiles", "n"], rows)
    report("observation", arguments, {"results": results}, [table])


if __name__ == "__main__":
    main()
