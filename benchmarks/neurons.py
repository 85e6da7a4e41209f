"""One layer of LIF neurons over time, forward and backward: ours, compiled, SpikingJelly's.

    python benchmarks/neurons.py --device cpu

The floor is the time in which this machine moves the 24 bytes of a neuron and timestep, measured by sums of tensors.
Ratios are throughput over SpikingJelly's.
"""

from collections.abc import Callable

import torch
from timing import alternate, arguments_of, compared, mover, ratio_table, report, set_up
from torch import Tensor

from dpap.spiking import LIF

SIZES = {
    "MNIST, 1st": (8, 64, 15, 28, 28),
    "MNIST, 2nd": (8, 64, 40, 14, 14),
    "6Conv2FC, 1st": (8, 16, 128, 32, 32),
}
BASELINE = "SpikingJelly"


def candidates(shape: tuple[int, ...], device: torch.device) -> dict[str, Callable[[], object]]:
    """Forward and backward of each, and the copy."""
    from spikingjelly.activation_based import functional, neuron, surrogate

    generator = torch.Generator().manual_seed(0)
    current, upstream = (torch.randn(shape, generator=generator).to(device) for _ in range(2))
    current.requires_grad_()
    theirs = neuron.LIFNode(2.0, surrogate_function=surrogate.ATan(2.0), detach_reset=True, step_mode="m")
    ours, compiled = LIF(detach_reset=True), LIF(detach_reset=True)
    compiled.compile_steps = True

    def spikingjelly() -> Tensor:
        functional.reset_net(theirs)
        return torch.autograd.grad(theirs(current), current, upstream)[0]

    return {
        BASELINE: spikingjelly,
        "ours": lambda: torch.autograd.grad(ours(current), current, upstream),
        "ours, compiled": lambda: torch.autograd.grad(compiled(current), current, upstream),
        "floor": mover(upstream),
    }


def main() -> None:
    """Time each size."""
    arguments = arguments_of(__doc__, rounds=20).parse_args()
    device = set_up(arguments)
    results = {}
    for size, shape in SIZES.items():
        results[size] = compared(alternate(candidates(shape, device), arguments.rounds, device), BASELINE)
    report("neurons", arguments, results, [ratio_table(size, rows) for size, rows in results.items()])


if __name__ == "__main__":
    main()
