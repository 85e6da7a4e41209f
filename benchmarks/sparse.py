"""From which share of dead synapses on is a fully connected layer faster by sparse products?

    python benchmarks/sparse.py --threads 1

A layer by `dpap.sparse_execution`, whatever its size and share, and as it is, take turns in one process. The ratio is
how often the sparse one runs in the time of the dense one.
"""

from typing import Any

import torch
from timing import alternate, arguments_of, compared, report, set_up, text_table
from torch import nn

import dpap

SHAPES = ((512, 4096), (256, 2240), (300, 800), (128, 512))
DEAD = (0.8, 0.9, 0.95, 0.98, 0.99)
BATCHES = (1, 64)


@torch.no_grad()
def measure(shape: tuple[int, int], dead: float, batch: int, rounds: int) -> dict[str, Any]:
    """One matrix [unit, feature]."""
    torch.manual_seed(0)
    units, features = shape
    layer, x = nn.Linear(features, units).eval(), torch.rand(batch, features)
    layer.weight[torch.rand(units, features) < dead] = 0
    dense = layer.forward
    with dpap.sparse_execution(layer, least_dead=0, least_weights=0):
        candidates = {"dense": lambda: dense(x), "sparse": lambda: layer.forward(x)}
        rows = compared(alternate(candidates, rounds, torch.device("cpu")), "dense")
    return {"shape": shape, "dead": dead, "batch": batch, **rows}


def main() -> None:
    """Time every matrix."""
    arguments = arguments_of(__doc__, rounds=200).parse_args()
    set_up(arguments)
    rows = [
        measure(shape, dead, batch, arguments.rounds)
        for shape in SHAPES
        for dead in DEAD
        for batch in BATCHES
    ]
    lines = [
        [
            "{} x {}".format(*row["shape"]),
            f"{row['dead']:.0%}",
            f"{row['batch']}",
            f"{row['dense']['milliseconds']:.3f}",
            f"{row['sparse']['milliseconds']:.3f}",
            f"{row['sparse']['ratio']:.2f}",
            f"{row['sparse']['low']:.2f}-{row['sparse']['high']:.2f}",
            f"{row['sparse']['n']}",
        ]
        for row in rows
    ]
    names = ["matrix", "dead", "batch", "dense, ms", "sparse, ms", "ratio", "quartiles", "n"]
    report("sparse", arguments, {"layers": rows}, [text_table(names, lines)])


if __name__ == "__main__":
    main()
