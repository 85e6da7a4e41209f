"""NIR graphs run timestep by timestep, beside the network in PyTorch."""

from collections.abc import Callable
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dpap.export.onnx_check import Difference
from dpap.export.report import Comparison, ExportError

DT = 1e-4
"""Seconds of a timestep, as the readers of NIR files assume."""


def compare_nir(graph: Any, frames: Tensor, series: Tensor, spikes: dict[str, Tensor]) -> Comparison:
    """A graph beside a network.

    Args:
        graph: as it was read from its file.
        frames: [T, B, ...], what the network was given.
        series: [T, B, ...], what its output layer gave.
        spikes: of each node of neurons, [T, B, ...].
    """
    found = Difference()
    simulation = Simulation(graph)
    for t, frame in enumerate(frames):
        given = simulation.step(frame.cpu().float())
        for name, expected in spikes.items():
            found.emitted(given[name].numpy(), expected[t])
        found.outputs({"output": given["output"].numpy()}, {"output": series[t]})
    return found.comparison(frames.shape[1])


class Simulation:
    """Runs a graph by Euler's method, from rest.

    Args:
        graph: of the nodes that `export_nir` writes.
    """

    def __init__(self, graph: Any) -> None:
        self.nodes = graph.nodes
        self.readers: dict[str, list[str]] = {name: [] for name in self.nodes}
        for source, reader in graph.edges:
            self.readers[reader].append(source)
        self.order = list(TopologicalSorter(self.readers).static_order())
        self.membranes: dict[str, Tensor] = {}

    def step(self, frame: Tensor) -> dict[str, Tensor]:
        """What each node gives."""
        values: dict[str, Tensor] = {}
        for name in self.order:
            sources = [values[source] for source in self.readers[name]]
            values[name] = self._run(
                name, self.nodes[name], sum(sources[1:], sources[0]) if sources else frame
            )
        return values

    def _run(self, name: str, node: Any, x: Tensor) -> Tensor:
        match type(node).__name__:
            case "Input" | "Output":
                return x
            case "Affine":
                return F.linear(x, _tensor(node.weight), _tensor(node.bias))
            case "Conv1d" | "Conv2d" as kind:
                run: Callable[..., Tensor] = F.conv1d if kind == "Conv1d" else F.conv2d
                settings = {
                    each: _plain(getattr(node, each)) for each in ("stride", "padding", "dilation", "groups")
                }
                return run(x, _tensor(node.weight), _tensor(node.bias), **settings)
            case "Flatten":
                return x.flatten(int(node.start_dim), int(node.end_dim))
            case "AvgPool2d" | "SumPool2d" as kind:
                settings = {
                    each: _plain(getattr(node, each)) for each in ("kernel_size", "stride", "padding")
                }
                return F.avg_pool2d(x, **settings, divisor_override=1 if kind == "SumPool2d" else None)
            case "LIF" | "IF" as kind:
                return self._neurons(name, node, x, kind == "LIF")
            case other:
                raise ExportError(f"a graph of this export has no {other}, the node {name}")

    def _neurons(self, name: str, node: Any, x: Tensor, leaky: bool) -> Tensor:
        v = self.membranes.get(name, torch.zeros_like(x))
        resistance = _tensor(node.r)
        if leaky:
            # as torch.lerp rounds
            h = torch.lerp(v, _tensor(node.v_leak) + resistance * x, _tensor(DT / node.tau))
        else:
            h = v + _tensor(DT * node.r) * x
        fired = h >= _tensor(node.v_threshold)
        self.membranes[name] = torch.where(fired, _tensor(node.v_reset), h)
        return fired.to(x.dtype)


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.asarray(array, np.float32))


def _plain(setting: Any) -> Any:
    if isinstance(setting, str):
        return setting
    values = np.asarray(setting)
    return int(values) if values.ndim == 0 else tuple(int(each) for each in values)
