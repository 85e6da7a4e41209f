"""Training steps of networks, ours and others': as they come, as a CUDA graph, or compiled by torch."""

import gc
import importlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch
from jobs import Setting
from steps import NETWORKS, STEPS, TAU, InSnnTorch, InSpikingJelly
from timing import alternate, compared, random_batch, synchronise, training_step
from torch import Tensor

from dpap.models import NetworkConfig, build_network

Step = Callable[[], Any]
REPEATS = 3
"""Steps of one measured run; the device is waited for after the last."""


def small(setting: Setting, name: str, batch: int) -> tuple[NetworkConfig, tuple[int, int, int], int]:
    """A network of Table I, the shape of its images, and a batch."""
    layers, shape, _ = NETWORKS[name]
    config = NetworkConfig(layers, timesteps=STEPS, tau=TAU, detach_reset=True)
    if setting.rehearse:
        config = NetworkConfig(**{**vars(config), "width": 0.04, "timesteps": 2})
    return config, shape, 2 if setting.rehearse else batch


def built(config: NetworkConfig, shape: tuple[int, int, int], device: torch.device) -> Any:
    """The network, always with the same weights."""
    torch.manual_seed(0)
    return build_network(config, shape).to(device)


def stepper(network: Any, images: Tensor, labels: Tensor, options: list[str]) -> Step:
    """A training step with Adam.

    Args:
        network: changed in place.
        images: of a batch.
        labels: of the batch.
        options: "channels last", "bfloat16" (autocast), "graph" (all of the step), "torch.compile" (of the network).
    """
    if "channels last" in options:
        network.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    network.train()
    cuda = images.is_cuda
    graph = "graph" in options and cuda
    optimizer = torch.optim.Adam(network.parameters(), fused=cuda, capturable=graph)
    called: Any = torch.compile(network) if "torch.compile" in options and cuda else network
    half = "bfloat16" in options and cuda  # a CPU may only emulate it

    def step() -> Tensor:
        return training_step(called, optimizer, images, labels, half)

    return Graph(step, optimizer) if graph else step


class Graph:
    """A step as a CUDA graph, and what holds the batch and the network, which it reads where they lay."""

    def __init__(self, step: Step, optimizer: torch.optim.Optimizer) -> None:
        self.step = step
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        optimizer.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            step()

    def __call__(self) -> None:
        """Run it."""
        self.graph.replay()


def candidate(
    name: str, config: NetworkConfig, shape: tuple[int, int, int], batch: int, device: torch.device
) -> Step:
    """The step of "ours", "SpikingJelly", "SpikingJelly's torch" or "snnTorch", with options after commas."""
    kind, *options = name.split(", ")
    network: Any = built(config, shape, device)
    if kind.startswith("SpikingJelly"):
        network = InSpikingJelly(network).to(device)
    elif kind == "snnTorch":
        network = InSnnTorch(network).to(device)
    images, labels = random_batch(batch, shape, device)
    step = stepper(network, images, labels, options)
    return in_torch(step) if kind == "SpikingJelly's torch" else step


def in_torch(step: Step) -> Step:
    """The step with SpikingJelly's neurons of torch's operations, where it would take Triton's by itself."""
    selection = importlib.import_module("spikingjelly._ops.lif")._selection
    own: dict[int, Any] = {}

    def with_torch() -> None:
        before = selection._requested, selection._selections
        selection._requested, selection._selections = "torch", own
        try:
            step()
        finally:
            selection._requested, selection._selections = before

    return with_torch


def spikingjelly_takes(device: torch.device) -> str:
    """Which implementation SpikingJelly has chosen for its neurons."""
    if device.type != "cuda":
        return "torch"
    selection = importlib.import_module("spikingjelly._ops.lif")._selection
    return str(selection.diagnostics(torch.device("cuda", torch.cuda.current_device()))["implementation"])


def measured(makers: Mapping[str, Callable[[], Step]], setting: Setting, baseline: str) -> dict[str, Any]:
    """Milliseconds of a step, ratios to the baseline and peak MiB of each candidate; what cannot run, and why.

    A graph's memory is its own pool, which torch does not count, so its peak is left out.
    """
    device, steps, failed, peaks = setting.device, {}, {}, {}
    for name, make in makers.items():
        gc.collect()
        before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
        try:
            step = make()
            for _ in range(2):
                step()
            gc.collect()
            if device.type == "cuda" and not isinstance(step, Graph):
                synchronise(device)
                torch.cuda.reset_peak_memory_stats()
                for _ in range(2):
                    step()
                synchronise(device)
                peaks[name] = (torch.cuda.max_memory_allocated() - before) / 2**20
            steps[name] = repeated(step)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"[:500]
            with suppress(Exception):
                synchronise(device)
    if baseline in failed:
        raise RuntimeError(f"{baseline}: {failed[baseline]}")
    rows = compared(alternate(steps, setting.rounds, device), baseline)
    for name, row in rows.items():
        row["milliseconds"] /= REPEATS
        if name in peaks:
            row["peak MiB"] = peaks[name]
    return {"rows": rows, "failed": failed, "baseline": baseline}


def repeated(step: Step) -> Step:
    """`REPEATS` steps."""

    def run() -> None:
        for _ in range(REPEATS):
            step()

    return run
