"""What observing a network costs: a training step with and without it.

    python benchmarks/observation.py --network mnist --every 1 2 4

The same network is stepped bare and while a `dpap.Pruner` observes every n-th batch; a round is as many steps as lie
between two observations. The share is of the bare step. `dpap.PruningConfig.observe_every` is the n, 4 by default.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from steps import NETWORKS, ours
from timing import alternate, arguments_of, compared, report, text_table

import dpap


def stepper(name: str, every: int | None, steps: int, device: torch.device) -> Callable[[], None]:
    """So many training steps of a network, observed every n-th time or not at all."""
    _, shape, batch = NETWORKS[name]
    model = ours(name, device)
    images = torch.rand(batch, *shape, device=device)
    labels = torch.arange(batch, device=device) % 10
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    if every is not None:
        # the pruner lives as long as its hooks, which the network holds
        config = dpap.PruningConfig(target=0.6, end_epoch=20, observe_every=every)
        dpap.Pruner(model, images[:4], optimizer, config)
    model.train()

    def run() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()

    return run


def main() -> None:
    """Measure and report."""
    parser = arguments_of(__doc__, rounds=20)
    parser.add_argument("--network", choices=NETWORKS, nargs="+", default=list(NETWORKS))
    parser.add_argument("--every", type=int, nargs="+", default=[1, 4], help="observe every n-th batch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    results = {}
    rows = []
    for name in arguments.network:
        for every in arguments.every:
            pair = {
                "bare": stepper(name, None, every, device),
                "observed": stepper(name, every, every, device),
            }
            told = compared(alternate(pair, arguments.rounds, device), "bare")
            cost = {key: 1 / told["observed"][key] - 1 for key in ("ratio", "low", "high")}
            results[f"{name} every {every}"] = {"steps": told, "cost": cost}
            bounds = f"{cost['high']:+.1%} to {cost['low']:+.1%}"
            step = f"{told['bare']['milliseconds'] / every:.1f}"
            rows.append([name, f"{every}", step, f"{cost['ratio']:+.1%}", bounds, f"{arguments.rounds}"])
    table = text_table(["network", "observed every", "ms a step", "cost", "quartiles", "n"], rows)
    report("observation", arguments, {"results": results}, [table])


if __name__ == "__main__":
    main()
