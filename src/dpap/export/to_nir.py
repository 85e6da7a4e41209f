"""Spiking networks as NIR files, the neuromorphic intermediate representation; each is read back and run.

    LIF, PLIF    tau dv/dt = v_leak - v + r I    with tau = tau_d dt, r = 1, v_leak = v_reset = 0
    IF           dv/dt = r I                     with r = 1 / dt

With tau_d in timesteps of dt = 1e-4 seconds, Euler's step of these is the neurons' own.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from dpap.anatomy.frozen import frozen
from dpap.export.calls import Call, Example, batch_axis_of, named, outcome
from dpap.export.nir_check import DT, compare_nir
from dpap.export.report import ExportError, ExportReport
from dpap.export.requirements import required
from dpap.export.watch import Value, Watch
from dpap.files import replacing
from dpap.spiking import SpikingNeuron
from dpap.spiking.recorded import watched
from dpap.surgery.pruned import settle
from dpap.surgery.timesteps import BUFFER

_NOTHING = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.Identity)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_TAKEN = (
    nn.Conv1d, nn.Conv2d, nn.Linear, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.MaxPool2d, nn.Flatten, SpikingNeuron
)  # fmt: skip


def export_nir(
    model: nn.Module,
    example: Example,
    path: str | Path,
    *,
    pool_spikes: bool = False,
    sum_pooling: bool = False,
) -> ExportReport:
    """Write a network of `dpap.spiking` neurons as a NIR file, for neuromorphic chips and other simulators.

    Batch norm is folded into the layer before it; every layer has a bias. The graph takes the current of a timestep and
    gives that of the output layer, or its spikes: a mean over time is left to the reader. The file is read back, run on
    the example timestep by timestep, and compared with the network in PyTorch.

    Args:
        model: the network, in layers with hard resets and without silenced timesteps; residual sums are fine.
        example: what its forward takes, best of real data: images [B, ...], or frames [T, B, ...].
        path: of the file.
        pool_spikes: write a MaxPool2d of spikes as pooling and neurons that fire from half of one spike on, which is
            the same; such layers are refused otherwise, for they add neurons.
        sum_pooling: write average pooling as a sum, with 1 / k^2 folded into the layer behind it: Norse has no other.

    Returns:
        What was written, and how far it differs.

    Raises:
        ImportError: where nir is not installed.
        ExportError: where the network has something that NIR has no node for, or the file computes something else.

    Example:
        >>> import torch, dpap
        >>> from torch import nn
        >>> from dpap.spiking import LIF
        >>> model = nn.Sequential(nn.Linear(8, 4), LIF(), nn.Linear(4, 2))
        >>> try:
        ...     written = dpap.export_nir(model, 4 * torch.rand(5, 3, 8), "small.nir").nodes
        ... except ImportError:  # no nir installed
        ...     written = 5
        >>> written  # with those of input and output
        5
    """
    (nir,) = required("nir", "nir")
    settle(model)
    path = Path(path)
    with frozen(model), watched():
        call = Call.of(model, example)
        if len(call.tensors) != 1:
            raise ExportError(f"NIR takes one input; this network's example has {len(call.tensors)} tensors")
        _refuse_silenced(model)
        axis = batch_axis_of(model, call)
        spikes = outcome(model, lambda: call.run(model, call.tensors)).spikes
        if not spikes.tensors:
            raise ExportError(
                "NIR is for spiking networks; this one ran no spiking neurons: export it to ONNX"
            )
        (given,) = (tensor.clone() for tensor in call.tensors)
        graph = _Graph(nir, pool_spikes, sum_pooling)
        watch = Watch(graph)
        watch.put(graph.input(given, axis))
        with watch.watching(model):
            outputs = list(named(call.run(model, [given])).values())
        if len(outputs) != 1:
            raise ExportError(f"NIR takes one output; this network returns {len(outputs)}")
        last = watch.values.get(id(outputs[0]))
        if last is None:
            raise ExportError("the network's output comes from no layer and no neurons")
        last = last.read_out or last
        graph.output(last)
        steps = len(spikes.tensors[0])
        series = last.tensor.reshape(steps, -1, *last.unit)
        frames = given if axis == 1 else given.expand(steps, *given.shape)
        shown = {node: spikes.tensors[place] for node, place in graph.calls.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            temporary = Path(file.name)
            nir.write(temporary, nir.NIRGraph(nodes=graph.nodes, edges=graph.edges))
            size, inputs = temporary.stat().st_size, {"input": str([*graph.unit])}
            report = ExportReport(path, "NIR", len(graph.nodes), size, inputs)
            comparison = compare_nir(nir.read(temporary), frames, series, shown)
            return report.compared(comparison, "a reader of its own")


def _refuse_silenced(model: nn.Module) -> None:
    silenced = [name for name, module in model.named_modules() if BUFFER in module._buffers]
    if silenced:
        raise ExportError(
            f"NIR has no node for timesteps that are silenced, those of {', '.join(silenced)}: prune without timesteps "
            "(PruningConfig(timesteps=False)), or export to ONNX"
        )


class _Graph:
    """Nodes and edges, from calls of layers.

    Args:
        nir: the package.
        pool_spikes, sum_pooling: as `export_nir` takes them.
    """

    def __init__(self, nir: Any, pool_spikes: bool, sum_pooling: bool) -> None:
        self.nir, self.pool_spikes, self.sum_pooling = nir, pool_spikes, sum_pooling
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.calls: dict[str, int] = {}
        """Node of neurons -> which call of neurons it is."""

    def input(self, tensor: Tensor, axis: int) -> Value:
        """The value of the input, samples along an axis."""
        self.unit = tuple(tensor.shape[axis + 1 :])
        self.nodes["input"] = self.nir.Input(input_type={"input": np.array(self.unit)})
        return Value(("input",), self.unit, tensor)

    def output(self, value: Value) -> None:
        """The node that gives the network's output."""
        if value.gone or value.scale != 1:
            raise ExportError("the network's output comes from an average pooling: leave sum_pooling off")
        self.nodes["output"] = self.nir.Output(output_type={"output": np.array(value.unit)})
        self.edges += [(source, "output") for source in value.sources]

    def takes(self, module: nn.Module) -> bool:
        """Whether calls of a module are one node, or none."""
        return isinstance(module, (*_TAKEN, *_NORMS, *_NOTHING))

    def call(self, name: str, module: nn.Module, value: Value, output: Tensor) -> Value:
        """The value of a module's output."""
        where = f"{name} ({type(module).__name__})"
        unit = tuple(output.shape[value.lead :])
        if isinstance(module, _NOTHING):
            return Value(value.sources, value.unit, output, value.scale)
        if isinstance(module, nn.Flatten):
            if unit != (math.prod(value.unit),):
                raise ExportError(f"NIR has no node for {where}, which flattens {value.unit} to {unit}")
            return self.flatten(value, output, name)
        if isinstance(module, _NORMS):
            return self._norm(name, module, value, output)
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            node = self._weights(where, module, value)
            return Value((self._add(name, node, value),), unit, output)
        if value.scale != 1:
            raise ExportError(
                f"the 1 / k^2 of a sum pooling goes into the weights of the layer behind it; {where} has none: leave "
                "sum_pooling off"
            )
        if isinstance(module, SpikingNeuron):
            added = self._add(name, self._neurons(where, module, unit), value)
            self.calls[added] = len(self.calls)
            return Value((added,), unit, output)
        if isinstance(module, nn.MaxPool2d):
            return self._max_pool(name, module, value, output)
        return self._average(name, module, value, output)

    def flatten(self, value: Value, output: Tensor, name: str = "flatten") -> Value:
        """The value with one axis for all features."""
        if len(value.unit) == 1:
            return Value(value.sources, value.unit, output, value.scale)
        # from the end: readers differ in whether they count the axis of samples
        node = self.nir.Flatten(
            input_type={"input": np.array(value.unit)}, start_dim=-len(value.unit), end_dim=-1
        )
        return Value((self._add(name, node, value),), (math.prod(value.unit),), output, value.scale)

    def _add(self, name: str, node: Any, value: Value) -> str:
        name = plain = (name or "layer").replace(".", "_")
        number = 1
        while name in self.nodes or name == "output":
            name, number = f"{plain}_{number}", number + 1
        self.nodes[name] = node
        self.edges += [(source, name) for source in value.sources]
        return name

    def _weights(self, where: str, module: nn.Linear | nn.Conv1d | nn.Conv2d, value: Value) -> Any:
        weight = _array(module.weight) * np.float32(value.scale)
        bias = np.zeros(len(weight), np.float32) if module.bias is None else _array(module.bias)
        if isinstance(module, nn.Linear):
            if len(value.unit) != 1:
                raise ExportError(f"NIR has no node for {where} along the last axis of {value.unit}")
            return self.nir.Affine(weight=weight, bias=bias)
        if module.padding_mode != "zeros":
            raise ExportError(f"NIR has no node for {where} with padding_mode {module.padding_mode!r}")
        single = isinstance(module, nn.Conv1d)
        kind = self.nir.Conv1d if single else self.nir.Conv2d

        def along(setting: Any) -> Any:
            return setting[0] if single and isinstance(setting, tuple) else setting

        return kind(
            input_shape=value.unit[1] if single else value.unit[1:],
            weight=_dense(weight, module.groups),
            stride=along(module.stride),
            padding=along(module.padding),
            dilation=along(module.dilation),
            groups=1,
            bias=bias,
        )

    def _norm(
        self, name: str, module: nn.BatchNorm1d | nn.BatchNorm2d, value: Value, output: Tensor
    ) -> Value:
        """Fold it into the layer before, where nothing else reads that; else it is a layer of its own."""
        if module.running_mean is None or module.running_var is None:
            raise ExportError(f"NIR has no node for {name}, which normalises by each batch's own statistics")
        gain = 1 / np.sqrt(_array(module.running_var).astype(np.float64) + module.eps)
        if module.weight is not None:
            gain = gain * _array(module.weight)
        shift = -_array(module.running_mean) * gain
        if module.bias is not None:
            shift = shift + _array(module.bias)
        source = self.nodes[value.sources[0]] if len(value.sources) == 1 else None
        linear = self.nir.Affine, self.nir.Conv1d, self.nir.Conv2d
        if isinstance(source, linear) and not any(first == value.sources[0] for first, _ in self.edges):
            wide = gain.reshape(-1, *[1] * (source.weight.ndim - 1))
            source.weight = (source.weight * wide).astype(np.float32)
            source.bias = (source.bias * gain + shift).astype(np.float32)
            value.gone = f"what is before {name}, which is folded into the layer before it,"
            return Value(value.sources, value.unit, output)
        diagonal = np.diag(gain * value.scale).astype(np.float32)
        if len(value.unit) == 1:
            node = self.nir.Affine(weight=diagonal, bias=shift.astype(np.float32))
        elif len(value.unit) == 3:
            kernel, bias = diagonal[:, :, None, None], shift.astype(np.float32)
            node = self.nir.Conv2d(
                input_shape=value.unit[1:],
                weight=kernel,
                stride=1,
                padding=0,
                dilation=1,
                groups=1,
                bias=bias,
            )
        else:
            raise ExportError(
                f"NIR has no node for {name}, which normalises {value.unit} behind no layer with weights"
            )
        return Value((self._add(name, node, value),), value.unit, output)

    def _neurons(self, where: str, module: SpikingNeuron, unit: tuple[int, ...]) -> Any:
        if module.reset != "hard":
            raise ExportError(
                f"NIR has no node for {where}: its reset is soft, by the threshold, and NIR resets to a value; "
                'train with reset="hard", or export to ONNX'
            )
        rate = module.rate()
        if rate is None:
            return self._fire(unit, module.threshold)
        # a time constant in single precision would not be the same number of timesteps again
        tau = np.full(unit, DT / float(rate))
        zero, threshold = _full(unit, 0), _full(unit, module.threshold)
        return self.nir.LIF(tau=tau, r=_full(unit, 1), v_leak=zero, v_threshold=threshold, v_reset=zero)

    def _fire(self, unit: tuple[int, ...], threshold: float) -> Any:
        """Neurons without a leak."""
        return self.nir.IF(r=_full(unit, 1 / DT), v_threshold=_full(unit, threshold), v_reset=_full(unit, 0))

    def _average(self, name: str, module: nn.Module, value: Value, output: Tensor) -> Value:
        unit = tuple(output.shape[value.lead :])
        if isinstance(module, nn.AdaptiveAvgPool2d):
            sizes = [whole / parts for whole, parts in zip(value.unit[1:], unit[1:], strict=True)]
            if any(size != int(size) for size in sizes):
                raise ExportError(
                    f"NIR has no node for {name}, from {value.unit[1:]} to {unit[1:]}: areas overlap"
                )
            kernel = stride = (int(sizes[0]), int(sizes[1]))
            padding = (0, 0)
        else:
            assert isinstance(module, nn.AvgPool2d)
            kernel, stride, padding = _pair(module.kernel_size), _pair(module.stride), _pair(module.padding)
            padded = any(padding) and not module.count_include_pad
            if module.ceil_mode or padded or module.divisor_override:
                raise ExportError(
                    f"NIR has no node for {name}: an average pooling with ceil_mode, divisor_override, or padding that "
                    "does not count"
                )
        if self.sum_pooling:
            node = self._pool(self.nir.SumPool2d, kernel, stride, padding)
            scale = 1 / math.prod(kernel)
        else:
            node, scale = self._pool(self.nir.AvgPool2d, kernel, stride, padding), 1.0
        return Value((self._add(name, node, value),), unit, output, scale)

    def _max_pool(self, name: str, module: nn.MaxPool2d, value: Value, output: Tensor) -> Value:
        source = self.nodes[value.sources[0]]
        spikes = len(value.sources) == 1 and isinstance(source, self.nir.LIF | self.nir.IF)
        if not spikes:
            raise ExportError(
                f"NIR has no node for {name}, the largest of values that are no spikes: put the neurons before the "
                "pooling, use average pooling, or export to ONNX"
            )
        if not self.pool_spikes:
            raise ExportError(
                f"NIR has no node for {name}; of spikes it is the same as pooling and neurons that fire from half of "
                "one spike on, which pool_spikes=True (--pool-spikes) adds"
            )
        kernel, stride, padding = _pair(module.kernel_size), _pair(module.stride), _pair(module.padding)
        if module.ceil_mode or _pair(module.dilation) != (1, 1):
            raise ExportError(f"NIR has no node for {name}: a pooling with ceil_mode or dilation")
        unit = tuple(output.shape[value.lead :])
        kind = self.nir.SumPool2d if self.sum_pooling else self.nir.AvgPool2d
        one = 1.0 if self.sum_pooling else 1 / math.prod(kernel)
        pooled = Value((self._add(name, self._pool(kind, kernel, stride, padding), value),), unit, output)
        return Value((self._add(f"{name}_spike", self._fire(unit, one / 2), pooled),), unit, output)

    @staticmethod
    def _pool(kind: Any, *settings: tuple[int, int]) -> Any:
        return kind(*(np.array(each) for each in settings))


def _dense(weight: Any, groups: int) -> Any:
    """Weights of a grouped convolution with zeros between the groups, which readers of NIR do not take."""
    if groups == 1:
        return weight
    units, features = len(weight) // groups, weight.shape[1]
    dense = np.zeros((len(weight), features * groups, *weight.shape[2:]), weight.dtype)
    for group in range(groups):
        rows = slice(group * units, (group + 1) * units)
        dense[rows, group * features : (group + 1) * features] = weight[rows]
    return dense


def _full(unit: tuple[int, ...], value: float) -> Any:
    return np.full(unit, value, np.float32)


def _pair(setting: int | tuple[int, ...]) -> tuple[int, int]:
    return (setting, setting) if isinstance(setting, int) else (setting[0], setting[1])


def _array(tensor: Tensor) -> Any:
    return tensor.detach().cpu().float().numpy()
