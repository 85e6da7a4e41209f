"""How much of the multiplications that removal saves is saved in time: dense networks and halves of them.

    python benchmarks/shrinking.py --keep-memory

A random half of the units of every prunable layer is removed by the library's own surgery. A training step (forward,
backward, Adam) of the dense network, of its remaining half, and of a network that was built with half the width
alternate in one process; the last separates the cost of surgery from that of smaller layers. MACs are those of an
inference of the batch. Two ratios are given:
    speed-up / MACs    (t_dense / t_small) / (MACs_dense / MACs_small): 1 where a step shortens as its MACs do
    saved / MACs       share of the time that is saved over the share of the MACs that is saved
"""

import argparse
from collections.abc import Callable

import torch
from steps import NETWORKS, STEPS, TAU
from timing import alternate, arguments_of, compared, random_batch, report, set_up, text_table, training_step
from torch import Tensor, nn

from anatomy import mask_half
from dpap.anatomy import find_wiring
from dpap.metrics import macs
from dpap.models import NetworkConfig, build_network
from dpap.surgery import Masks, Silence
from dpap.surgery.compact import remove_dead

SPIKING = {
    name: (NetworkConfig(layers, timesteps=STEPS, tau=TAU, detach_reset=True), shape, batch)
    for name, (layers, shape, batch) in NETWORKS.items()
}
SHRUNK = {
    "2Conv2FC, spiking": SPIKING["mnist"],
    "6Conv2FC, spiking": SPIKING["cifar"],
    "VGG16": (NetworkConfig("vgg16", neuron="relu"), (3, 32, 32), 32),
}
DENSE, HALVED, NARROW = "dense", "half removed", "built half as wide"
Row = dict[str, float]


def halved(model: nn.Module, example: Tensor) -> nn.Module:
    """The network without a random half of the units of every prunable layer."""
    wiring = find_wiring(model, (example,))
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    mask_half(wiring, masks)
    silence = Silence(model, wiring, [])
    silence.impose(masks)
    remove_dead(model, wiring, masks, [], (example,))
    silence.remove()
    return model


def stepper(model: nn.Module, images: Tensor, labels: Tensor, bfloat16: bool) -> Callable[[], Tensor]:
    """A training step of the network."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters())
    return lambda: training_step(model, optimizer, images, labels, bfloat16)


def measure(name: str, arguments: argparse.Namespace, device: torch.device) -> dict[str, Row]:
    """One network: dense, shrunk, and narrow from the start."""
    config, shape, batch = SHRUNK[name]
    images, labels = random_batch(batch, shape, device)

    def build(width: float) -> nn.Module:
        torch.manual_seed(0)
        return build_network(NetworkConfig(**{**vars(config), "width": width}), shape).to(device)

    models = {DENSE: build(1.0), HALVED: halved(build(1.0), images[:4]), NARROW: build(0.5)}
    counted = {each: macs(model, images) for each, model in models.items()}
    if arguments.channels_last:
        for model in models.values():
            model.to(memory_format=torch.channels_last)
    steps = {each: stepper(model, images, labels, arguments.bfloat16) for each, model in models.items()}
    rows = compared(alternate(steps, arguments.rounds, device), DENSE)
    for each, row in rows.items():
        row["macs"] = counted[each]
        row["mac_ratio"] = counted[DENSE] / counted[each]
        row["macs_saved"] = 1 - counted[each] / counted[DENSE]
        row["time_saved"] = 1 - 1 / row["ratio"]
    return rows


def lines_of(name: str, rows: dict[str, Row]) -> list[list[str]]:
    """Lines of the table."""
    lines = []
    for each, row in rows.items():
        line = [name if each == DENSE else "", each, f"{row['milliseconds']:.1f}", f"{row['macs'] / 1e9:.2f}"]
        if each == DENSE:
            line += [""] * 8
        else:
            achieved = [row[key] / row["mac_ratio"] for key in ("ratio", "low", "high")]
            line += [
                f"{row['macs_saved']:.1%}",
                f"{row['time_saved']:.1%}",
                f"{row['mac_ratio']:.2f}",
                f"{row['ratio']:.2f}",
                f"{row['low']:.2f}-{row['high']:.2f}",
                f"{achieved[0]:.2f}",
                f"{achieved[1]:.2f}-{achieved[2]:.2f}",
                f"{row['time_saved'] / row['macs_saved']:.2f}",
            ]
        lines.append([*line, f"{row['n']}"])
    return lines


COLUMNS = (
    "network", "", "ms a step", "GMACs", "MACs saved", "time saved", "MAC ratio", "speed-up", "quartiles",
    "speed-up / MACs", "quartiles", "saved / MACs", "n",
)  # fmt: skip


def main() -> None:
    """Time each network."""
    parser = arguments_of(__doc__, rounds=20)
    parser.add_argument("--network", choices=tuple(SHRUNK), nargs="+", default=list(SHRUNK))
    parser.add_argument("--channels-last", action="store_true", help="of weights, and so of maps")
    parser.add_argument("--bfloat16", action="store_true", help="autocast, for all alike")
    arguments = parser.parse_args()
    device = set_up(arguments)
    results = {name: measure(name, arguments, device) for name in arguments.network}
    lines = [line for name, rows in results.items() for line in lines_of(name, rows)]
    kind = "".join(f", {each}" for each in ("channels_last", "bfloat16") if getattr(arguments, each))
    report(
        f"shrinking{kind}".replace(", ", "-"), arguments, {"networks": results}, [text_table(COLUMNS, lines)]
    )


if __name__ == "__main__":
    main()
