"""How a training step grows with the network's width, depth and timesteps, and how near it is to the machine's limits.

    python benchmarks/growth.py --keep-memory

A step is forward, backward and Adam. The roofline is what this machine needs at the least, by its own measured peaks:
operation by operation (they run one after the other) the longer of arithmetic and traffic.
    arithmetic    MACs, three times those of an inference, over the best rate of a large matrix product or convolution
    traffic       bytes over the bandwidth of large sums of tensors, in float32:
                  neurons    12 each way for each neuron and timestep; of a current that is constant over time (the
                             first layer) 8 each way, and 4 each way once
                  layers     4 each way for each number that enters or leaves, 4 for each input that is kept
                  weights    40 each: read twice, gradient written, and Adam's 16 read and 12 written
Observation is the cost of a step that a `dpap.Pruner` observes; by default it observes every fourth.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from observation import stepper
from timing import (
    alternate,
    arguments_of,
    compared,
    in_a_process,
    mover,
    peak_bytes,
    random_batch,
    report,
    set_up,
    synchronise,
    text_table,
)
from torch import Tensor, nn

from dpap.metrics import macs
from dpap.models import NetworkConfig, build_network
from dpap.report.style import BLUE, GREEN, GRID, MUTED, VERMILION, as_png, styled
from dpap.spiking import SpikingNeuron

SHAPE, BATCH = (1, 28, 28), 32
BASE = "15C3-AvgPool2-40C3-AvgPool2-300FC-10FC"
AXES: dict[str, dict[float, NetworkConfig]] = {
    "width": {width: NetworkConfig(BASE, width=width, detach_reset=True) for width in (0.5, 1, 2, 4)},
    "depth": {
        depth: NetworkConfig("-".join(["16C3"] * depth + ["AvgPool4", "10FC"]), detach_reset=True)
        for depth in (1, 2, 4, 8)
    },
    "timesteps": {
        steps: NetworkConfig(BASE, timesteps=steps, detach_reset=True) for steps in (2, 4, 8, 16, 32)
    },
}
Row = dict[str, float]


@dataclass(frozen=True)
class Peaks:
    """The best rates of this machine.

    Attributes:
        macs: multiply-accumulates a second, float32.
        bytes: moved to and from main memory a second.
    """

    macs: float
    bytes: float


def shortest(action: Callable[[], object], device: torch.device, rounds: int = 10) -> float:
    """Seconds of the fastest of some runs."""
    seconds = []
    for _ in range(rounds):
        synchronise(device)
        start = time.perf_counter()
        action()
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


@torch.no_grad()
def measure_peaks(device: torch.device) -> Peaks:
    """Of a matrix product of 2,048 x 2,048, a convolution of 128 channels, and sums of 64 MiB of numbers."""
    matrix = torch.randn(2048, 2048, device=device)
    maps, filters = torch.randn(32, 128, 32, 32, device=device), torch.randn(128, 128, 3, 3, device=device)
    convolution = maps.numel() * filters[0].numel()
    rates = (
        matrix.numel() * 2048 / shortest(lambda: matrix @ matrix, device),
        convolution / shortest(lambda: nn.functional.conv2d(maps, filters, padding=1), device),
    )
    numbers = torch.randn(2**24, device=device)
    return Peaks(max(rates), 24 * numbers.numel() / shortest(mover(numbers), device))


def roofline(model: nn.Module, images: Tensor, peaks: Peaks) -> Row:
    """Least seconds of a training step, and what they are made of."""
    operations: list[tuple[int, int]] = []

    def count(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        (entering,) = args
        numbers = entering.numel() + output.numel()
        if isinstance(module, SpikingNeuron):
            constant = len(entering) > 1 and entering.stride(0) == 0
            once = entering[0].numel() if constant else entering.numel()
            operations.append((0, 16 * output.numel() + 8 * once))
        elif isinstance(module, nn.Conv2d | nn.Linear):
            weights = sum(parameter.numel() for parameter in module.parameters())
            products = 3 * output.numel() * module.weight[0].numel()
            operations.append((products, 8 * numbers + 4 * entering.numel() + 40 * weights))
        elif not isinstance(module, nn.Flatten):
            operations.append((0, 8 * numbers))

    handles = [layer.register_forward_hook(count) for layer in model.children()]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    products, moved = (sum(each) for each in zip(*operations, strict=True))
    if products != 3 * macs(model, images):
        raise ValueError(
            f"operations add up to {products} MACs, dpap.metrics.macs counts {3 * macs(model, images)}"
        )
    return {
        "macs": products,
        "bytes": moved,
        "arithmetic": products / peaks.macs,
        "traffic": moved / peaks.bytes,
        "roofline": sum(max(one / peaks.macs, other / peaks.bytes) for one, other in operations),
    }


def build(config: NetworkConfig, device: torch.device) -> nn.Module:
    """A network of `AXES`."""
    torch.manual_seed(0)
    return build_network(config, SHAPE).to(device)


def measure(axis: str, arguments: argparse.Namespace, device: torch.device, peaks: Peaks) -> dict[float, Row]:
    """All points of an axis, which alternate."""
    images, labels = random_batch(BATCH, SHAPE, device)
    rows = {}
    steps: dict[str, Callable[[], None]] = {}
    for value, config in AXES[axis].items():
        rows[value] = roofline(build(config, device), images, peaks)
        for kind, every in (("bare", None), ("observed", 1)):
            steps[f"{kind} {value}"] = stepper(build(config, device), images, labels, every, 1)
    seconds = alternate(steps, arguments.rounds, device)
    for value, row in rows.items():
        pair = compared({kind: seconds[f"{kind} {value}"] for kind in ("bare", "observed")}, "bare")
        observed = pair["observed"]
        row["seconds"] = pair["bare"]["milliseconds"] / 1e3
        row["n"] = arguments.rounds
        row["observation"] = 1 / observed["ratio"] - 1
        row["observation_low"], row["observation_high"] = 1 / observed["high"] - 1, 1 / observed["low"] - 1
        row["peak_bytes"] = in_a_process(arguments, "--memory", axis, f"{value}")
    return rows


def slope(rows: dict[float, Row], key: str) -> float:
    """Exponent a of key ~ x^a by least squares in logarithms."""
    exponent, _ = np.polyfit(np.log(list(rows)), np.log([row[key] for row in rows.values()]), 1)
    return float(exponent)


def last_slope(rows: dict[float, Row], key: str) -> float:
    """The same, of the last doubling alone."""
    (before, less), (after, more) = list(rows.items())[-2:]
    return math.log(more[key] / less[key]) / math.log(after / before)


MEASURED = ("seconds", "roofline", "peak_bytes")


def table_of(axis: str, rows: dict[float, Row]) -> str:
    """One axis, its points and, below, its slopes."""
    lines = [
        [
            f"{value:g}",
            f"{1e3 * row['seconds']:.1f}",
            f"{1e3 * row['roofline']:.1f}",
            f"{row['seconds'] / row['roofline']:.1f}",
            f"{1e3 * row['arithmetic']:.1f}",
            f"{1e3 * row['traffic']:.1f}",
            f"{row['macs'] / 1e9:.2f}",
            f"{row['bytes'] / 1e6:,.0f}",
            f"{row['peak_bytes'] / 2**20:,.0f}",
            f"{row['observation']:+.1%}",
            f"{row['observation_low']:+.1%} to {row['observation_high']:+.1%}",
            f"{row['n']}",
        ]
        for value, row in rows.items()
    ]
    for name, fit in (("slope", slope), ("of the last doubling", last_slope)):
        time, floor, memory = (f"{fit(rows, key):.2f}" for key in MEASURED)
        lines.append([name, time, floor, "", "", "", "", "", memory, "", "", ""])
    head = [
        axis, "ms a step", "roofline", "times", "arithmetic", "traffic", "GMACs", "MB moved", "peak MiB",
        "observation", "quartiles", "n",
    ]  # fmt: skip
    return text_table(head, lines)


@styled
def draw(results: dict[str, dict[float, Row]]) -> Figure:
    """Time above, memory below; one column for each axis."""
    figure = Figure(figsize=(9.6, 5.6), layout="constrained")
    figure.suptitle("A training step against its limits", weight="bold", size=11.5, x=0.01, ha="left")
    panels = figure.subplots(2, len(results), sharex="col", sharey="row", height_ratios=(3, 2), squeeze=False)
    for column, (axis, rows) in enumerate(results.items()):
        above, below = panels[:, column]
        lines: list[tuple[Axes, str, float, str, str, float]] = [
            (above, "seconds", 1e3, BLUE, "measured", 0.97),
            (above, "roofline", 1e3, VERMILION, "roofline", 0.88),
            (below, "peak_bytes", 2**-20, GREEN, "peak memory", 0.95),
        ]
        for axes, key, scale, colour, name, height in lines:
            values = [scale * row[key] for row in rows.values()]
            axes.plot(list(rows), values, color=colour, linewidth=2, marker="o", markersize=4)
            words = f"{name}, slope {slope(rows, key):.2f}"
            axes.text(0.03, height, words, transform=axes.transAxes, color=colour, va="top")
        for axes in (above, below):
            _plain(axes, list(rows))
        below.set_xlabel(axis)
    panels[0, 0].set_ylabel("milliseconds a step")
    panels[1, 0].set_ylabel("MiB")
    return figure


def _plain(axes: Axes, values: list[float]) -> None:
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(values)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    for each in (axes.xaxis, axes.yaxis):
        each.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(length=0)
    axes.grid(axis="y", color=GRID, linewidth=0.8)


def main() -> None:
    """Measure, tabulate, draw."""
    parser = arguments_of(__doc__, rounds=20)
    parser.add_argument("--axis", choices=tuple(AXES), nargs="+", default=list(AXES))
    parser.add_argument(
        "--memory", nargs=2, metavar=("AXIS", "VALUE"), help="print the peak memory of one point in bytes"
    )
    arguments = parser.parse_args()
    device = set_up(arguments)
    if arguments.memory:
        axis, value = arguments.memory
        images, labels = random_batch(BATCH, SHAPE, device)
        stepper(build(AXES["depth"][1], device), images[:2], labels[:2], None, 1)()  # loads the libraries
        config = AXES[axis][float(value)]
        print(json.dumps(peak_bytes(lambda: stepper(build(config, device), images, labels, None, 1), device)))
        return
    peaks = measure_peaks(device)
    results = {axis: measure(axis, arguments, device, peaks) for axis in arguments.axis}
    limits = f"peaks: {peaks.macs / 1e9:.0f} GMACs/s, {peaks.bytes / 1e9:.1f} GB/s"
    slopes: dict[str, Any] = {
        axis: {key: {"fitted": slope(rows, key), "last doubling": last_slope(rows, key)} for key in MEASURED}
        for axis, rows in results.items()
    }
    tables = [limits, *(table_of(axis, rows) for axis, rows in results.items())]
    report("growth", arguments, {"peaks": vars(peaks), "axes": results, "slopes": slopes}, tables)
    (Path(arguments.out) / "growth.png").write_bytes(as_png(draw(results)))


if __name__ == "__main__":
    main()
