"""ImageNet-size throughput: dense networks beside those that do half of the multiplications, random images."""

import copy
from functools import partial
from typing import Any

import torch
from candidates import built, measured
from fast import CAST, RESNET, SEW, fresh, halved
from jobs import Job, Setting
from timing import alternate, compared, random_batch

from dpap.metrics import macs
from dpap.models import NetworkConfig

KEPT = 0.5**0.5
"""Of the channels of every layer: multiplications go with the product of two neighbours."""


def throughput(config: NetworkConfig, batch: int, setting: Setting) -> dict[str, Any]:
    """Images a second of a dense network and of one with half of its multiplications, in training and in evaluation."""
    shape, device = (3, 224, 224), setting.device
    if setting.rehearse:
        batch, shape = 2, (3, 32, 32)
        config = NetworkConfig(**{**vars(config), "width": 0.1})
    images, labels = random_batch(batch, shape, device)
    networks = {"dense": built(config, shape, device)}
    networks["half"] = halved(built(config, shape, device), images[:2], KEPT)
    counted = {name: macs(network, images[:2]) for name, network in networks.items()}
    saved = counted["dense"] / counted["half"]
    outcome: dict[str, Any] = {"n": setting.rounds, "batch": batch, "macs of 2": counted}
    trained = measured(
        {name: partial(fresh, network, images, labels, CAST) for name, network in networks.items()},
        setting,
        "dense",
    )

    def evaluating(network: Any) -> Any:
        network = copy.deepcopy(network).eval().to(memory_format=torch.channels_last)
        given = images.contiguous(memory_format=torch.channels_last)

        def run() -> None:
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=given.is_cuda):
                network(given)

        return run

    steps = {name: evaluating(network) for name, network in networks.items()}
    evaluated = {"rows": compared(alternate(steps, setting.rounds, device), "dense")}
    for way, rows in (("training", trained), ("evaluation", evaluated)):
        for row in rows["rows"].values():
            row["images a second"] = 1000 * batch / row["milliseconds"]
        if "half" in rows["rows"]:
            rows["speed-up over MACs"] = rows["rows"]["half"]["ratio"] / saved
        outcome[way] = rows
    return outcome


JOBS = [
    Job("throughput", "ResNet-50, batch 64", 60, partial(throughput, RESNET, 64)),
    Job("throughput", "SEW-ResNet-18, T = 4, batch 32", 60, partial(throughput, SEW, 32)),
]
