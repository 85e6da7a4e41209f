"""Neurons as one placeholder each while a network is exported, and what ONNX has in its place.

    h_t = v_{t-1} + rate (x_t - v_{t-1})    or, as torch.lerp rounds from rate 1/2 on, x_t - (1 - rate) (x_t - v_{t-1})

Timesteps are written out one by one, or as the body of a Scan where there are many.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpap.spiking import SpikingNeuron

WRITTEN_OUT = 8
"""Up to so many timesteps are written out: fewer nodes load faster, a Scan runs a little slower."""
DOMAIN, OPERATOR = "dpap", "Neurons"


@dataclass(frozen=True)
class Neurons:
    """One call of a layer of neurons.

    Attributes:
        name: of the module.
        threshold, rate, hard: of its rule.
        steps: timesteps.
        constant: whether the current is the same at all of them.
        dtype: of current and spikes.
    """

    name: str
    threshold: float
    rate: float | None
    hard: bool
    steps: int
    constant: bool
    dtype: torch.dtype

    @property
    def state_dtype(self) -> torch.dtype:
        """Of the membrane: single precision at least."""
        return torch.promote_types(self.dtype, torch.float32)


@contextmanager
def placeholders(model: nn.Module) -> Iterator[list[Neurons]]:
    """Meanwhile `dpap.spiking` neurons leave a placeholder in what is recorded; yields their calls, in order."""
    calls: list[Neurons] = []

    def forward(name: str, own: Rated, current: Tensor) -> Tensor:
        neuron = own.neuron
        steps = int(current.shape[0])
        constant = steps > 1 and current.stride(0) == 0
        hard = neuron.reset == "hard"
        calls.append(Neurons(name, neuron.threshold, own.rate, hard, steps, constant, current.dtype))
        spikes: Tensor = torch.onnx.ops.symbolic(
            f"{DOMAIN}::{OPERATOR}",
            (current,),
            {"call": len(calls) - 1},
            dtype=current.dtype,
            shape=current.shape,
            version=1,
        )
        return spikes

    with replaced_forwards(rated(model), forward):
        yield calls


@dataclass(frozen=True)
class Rated:
    """`dpap.spiking` neurons, and their rate, the value of which is not known while a program is recorded."""

    neuron: SpikingNeuron
    rate: float | None


def rated(model: nn.Module) -> dict[str, Rated]:
    """The neurons of a network by name."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, SpikingNeuron):
            rate = module.rate()
            found[name] = Rated(module, None if rate is None else float(rate))
    return found


@contextmanager
def replaced_forwards(neurons: dict[str, Rated], forward: Callable[..., Tensor]) -> Iterator[None]:
    """Let `forward(name, rated, current)` run in the place of the neurons' own."""
    before = {name: vars(each.neuron).get("forward") for name, each in neurons.items()}
    for name, each in neurons.items():
        each.neuron.forward = partial(forward, name, each)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for name, each in neurons.items():
            vars(each.neuron).pop("forward")
            if before[name] is not None:
                vars(each.neuron)["forward"] = before[name]


def leak(v: Tensor, x: Tensor, rate: float | None) -> Tensor:
    """The membrane before it fires, as `_Writer.step` writes it."""
    if rate is None:
        return v + x
    return v + (x - v) * rate if rate < 0.5 else x - (x - v) * (1 - rate)


def write_neurons(model: Any, calls: list[Neurons], written_out: int = WRITTEN_OUT) -> None:
    """Put ONNX's own operations in the place of the placeholders of a ModelProto."""
    nodes = list(model.graph.node)
    producers = {name: node for node in nodes for name in node.output}
    shapes = {
        value.name: [each.dim_value or each.dim_param for each in value.type.tensor_type.shape.dim]
        for value in (*model.graph.value_info, *model.graph.input)
    }
    del model.graph.node[:]
    for node in nodes:
        if node.domain != DOMAIN:
            model.graph.node.append(node)
            continue
        call = calls[next(each.i for each in node.attribute if each.name == "call")]
        writer = _Writer(model.graph, node.output[0], call)
        writer.write(node.input[0], _repeated(producers.get(node.input[0]), shapes), written_out)
    _drop_unused(model.graph)
    kept = [each for each in model.opset_import if each.domain != DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _repeated(producer: Any, shapes: dict[str, list[Any]]) -> str | None:
    """What an Expand over time repeats, and nothing else."""
    if producer is None or producer.op_type != "Expand":
        return None
    inner, outer = shapes.get(producer.input[0]), shapes.get(producer.output[0])
    return producer.input[0] if inner and outer and outer[1:] == inner and all(inner) else None


def _drop_unused(graph: Any) -> None:
    """Remove nodes and constants that nothing reads."""
    used = {value.name for value in graph.output}
    for node in reversed(graph.node):
        if used & set(node.output):
            used |= set(node.input)
            used |= {
                name
                for attribute in node.attribute
                if attribute.HasField("g")
                for inner in attribute.g.node
                for name in inner.input
            }
    nodes = [node for node in graph.node if used & set(node.output)]
    del graph.node[:]
    graph.node.extend(nodes)
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    made = {name for node in nodes for name in node.output}
    infos = [value for value in graph.value_info if value.name in made]
    del graph.value_info[:]
    graph.value_info.extend(infos)


class _Writer:
    """Writes the nodes of one call.

    Args:
        graph: gets nodes and constants.
        output: name of the spikes.
        call: of the neurons.
    """

    def __init__(self, graph: Any, output: str, call: Neurons) -> None:
        from onnx import TensorProto, helper, numpy_helper

        self.helper, self.numpy_helper = helper, numpy_helper
        self.graph, self.output, self.call = graph, output, call
        self.nodes: Any = graph.node
        self.count = 0
        types = {
            torch.float32: TensorProto.FLOAT,
            torch.float64: TensorProto.DOUBLE,
            torch.float16: TensorProto.FLOAT16,
            torch.bfloat16: TensorProto.BFLOAT16,
        }
        self.type, self.state_type = types[call.dtype], types[call.state_dtype]
        self.boolean, self.single = TensorProto.BOOL, TensorProto.FLOAT

    def add(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """A node; returns the name of its output."""
        name = name or self.fresh(operator.lower())
        self.nodes.append(self.helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def fresh(self, what: str) -> str:
        """A name that no other value of the graph has."""
        self.count += 1
        return f"{self.output}/{what}_{self.count}"

    def constant(self, value: Any) -> str:
        """A constant of the graph."""
        name = self.fresh("constant")
        self.graph.initializer.append(self.numpy_helper.from_array(np.asarray(value), name))
        return name

    def write(self, current: str, repeated: str | None, written_out: int) -> None:
        """The spikes of a current, or of what is repeated over time."""
        call = self.call
        real = np.float64 if call.state_dtype == torch.float64 else np.float32
        self.zero, self.threshold = self.constant(real(0)), self.constant(real(call.threshold))
        if call.rate is not None:
            # 1 - rate of the rate as the membrane's precision has it, as torch.lerp rounds
            self.rate, self.rest = self.constant(real(call.rate)), self.constant(1 - real(call.rate))
        if call.constant and repeated is None:
            repeated = self.at(current, 0)
        source = current if repeated is None else repeated
        if call.dtype != call.state_dtype:
            source = self.add("Cast", source, to=self.state_type)
        write = self._written_out if call.steps <= written_out else self._scan
        self.add("Cast", write(source, repeated is not None), name=self.output, to=self.type)

    def at(self, sequence: str, t: int) -> str:
        """A timestep."""
        return self.add("Gather", sequence, self.constant(np.int64(t)), axis=0)

    def _written_out(self, source: str, repeated: bool) -> str:
        v: str | None = None
        spikes, first = [], self.constant(np.zeros(1, np.int64))
        for t in range(self.call.steps):
            fired, v = self.step(source if repeated else self.at(source, t), v)
            spikes.append(self.add("Unsqueeze", fired, first))
        return self.add("Concat", *spikes, axis=0)

    def _scan(self, source: str, repeated: bool) -> str:
        state, info = self.state_type, self.helper.make_tensor_value_info
        shape = self.add("Shape", source if repeated else self.at(source, 0))
        rest = self.add("ConstantOfShape", shape, value=self.helper.make_tensor("", state, [1], [0.0]))
        v, x, spikes = self.fresh("v"), self.fresh("x"), self.fresh("fired")
        # a Scan runs along something
        sequence = self.constant(np.zeros(self.call.steps, np.float32)) if repeated else source
        outside, self.nodes = self.nodes, []
        fired, after = self.step(source if repeated else x, v)
        body = self.helper.make_graph(
            self.nodes,
            self.fresh("timestep"),
            [info(v, state, None), info(x, self.single if repeated else state, None)],
            [info(after, state, None), info(fired, self.boolean, None)],
        )
        self.nodes = outside
        names = [self.fresh("last"), spikes]
        self.nodes.append(
            self.helper.make_node("Scan", [rest, sequence], names, name=spikes, body=body, num_scan_inputs=1)
        )
        return spikes

    def step(self, x: str, v: str | None) -> tuple[str, str]:
        """Whether neurons fire, and their membranes after the reset; v None is at rest."""
        h = self._integrated(x, v)
        fired = self.add("GreaterOrEqual", h, self.threshold)
        reset = self.zero if self.call.hard else self.add("Sub", h, self.threshold)
        return fired, self.add("Where", fired, reset, h)

    def _integrated(self, x: str, v: str | None) -> str:
        rate = self.call.rate
        if v is None:
            return x if rate is None else self.add("Mul", x, self.rate)
        if rate is None:
            return self.add("Add", v, x)
        way = self.add("Sub", x, v)
        if rate < 0.5:
            return self.add("Add", v, self.add("Mul", way, self.rate))
        return self.add("Sub", x, self.add("Mul", way, self.rest))
