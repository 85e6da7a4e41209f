"""Networks as ONNX files, each compared with PyTorch."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dpap.anatomy.frozen import frozen
from dpap.anatomy.hidden_state import reset_state
from dpap.anatomy.neurons import reset_module
from dpap.export.calls import Call, Example, Outcome, batch_axis_of, named, outcome, recorded_spikes
from dpap.export.neurons import placeholders, write_neurons
from dpap.export.onnx_check import compare, compare_steps
from dpap.export.report import Comparison, ExportError, ExportReport
from dpap.export.requirements import installed, required, to_install
from dpap.export.streaming import Stepper, stepper_of
from dpap.files import replacing
from dpap.surgery.pruned import settle

BATCH, TIMESTEP = "batch", "timestep"
LARGEST = 2**31 - 1
"""Bytes of one protobuf message."""


def export_onnx(model: nn.Module, example: Example, path: str | Path, step: bool = False) -> ExportReport:
    """Write a network, compact or not, spiking or not, as an ONNX file that takes any number of samples.

    Where onnxruntime is installed it runs the file on the example, on more samples, an odd number, and on one, and what
    it returns is compared with what PyTorch does.

    Args:
        model: the network; it is written in evaluation mode, and left as it was.
        example: what its forward takes, best of real data: a tensor, a tuple of arguments, or a dictionary of keyword
            arguments. Samples are along the first axis or, behind time, the second. The file takes as many timesteps.
        path: of the file.
        step: write one timestep instead of a whole presentation. The file takes a frame [B, ...] and the membranes,
            zeros at first, and returns what the network returns for one timestep, and the membranes after it; where
            timesteps are silenced it takes the number of the timestep too. For `dpap.spiking` neurons.

    Returns:
        What was written, and how far it differs.

    Raises:
        ImportError: where onnx or onnxscript is not installed.
        ExportError: where the network cannot be written, treats some numbers of samples in another way than the
            example's, or the file computes something else.

    Example:
        >>> import torch, dpap
        >>> from torch import nn
        >>> small = nn.Sequential(nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> try:
        ...     name = dpap.export_onnx(small, torch.rand(4, 8), "small.onnx").path.name
        ... except ImportError:  # no onnx installed
        ...     name = "small.onnx"
        >>> name
        'small.onnx'
    """
    required("export", "onnx", "onnxscript")
    if not hasattr(torch.onnx, "ops"):
        raise ImportError(
            f"export to ONNX needs torch 2.8 or newer, here is {torch.__version__}: {to_install('export')}"
        )
    path = Path(path)
    settle(model)
    with frozen(model):
        call = Call.of(model, example)
        axis = batch_axis_of(model, call)
        if call.tensors[0].shape[axis] == 1:
            call = call.doubled(axis)  # one sample would be taken for a constant of the network
        program = _of_steps(stepper_of(model, call, axis)) if step else _of_all(model, call, axis)
        document = _recorded(model, program)
        watched = type(document)()
        watched.CopyFrom(document)
        _keep_outputs(document, {*program.outputs, *program.states})
        if document.ByteSize() > LARGEST:
            raise ExportError(
                f"an ONNX file holds 2 GiB at most; this network takes {document.ByteSize():,} bytes"
            )
        content = document.SerializeToString()
        report = ExportReport(path, "ONNX", len(document.graph.node), len(content), _inputs(document))
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(content)
            file.flush()
            if not installed("onnxruntime"):
                return report.unchecked("onnxruntime is not installed")
            return report.compared(program.compare(Path(file.name), watched), "onnxruntime")


@dataclass(frozen=True)
class _Program:
    """What is recorded.

    Attributes:
        forward: of a list of tensors; returns tensors.
        inputs: name -> tensor of the example.
        axes: of the inputs, that count samples; None where none does.
        outputs: names of what the network returns.
        spikes: names of what neurons emit, each an output or a value within.
        states: names of the membranes that are returned behind all that.
        compare: the file, and the document with all spikes among its outputs, with PyTorch.
    """

    forward: Callable[[list[Tensor]], tuple[Tensor, ...]]
    inputs: dict[str, Tensor]
    axes: list[int | None]
    outputs: list[str]
    spikes: list[str]
    states: list[str]
    compare: Callable[[Path, Any], Comparison]


def _of_all(model: nn.Module, call: Call, axis: int) -> _Program:
    """A whole presentation."""
    reference = outcome(model, lambda: call.run(model, call.tensors))
    spikes = _spike_names(reference)

    def forward(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        with recorded_spikes(model) as recorded:
            outputs = named(call.run(model, inputs))
        return _with_spikes(Outcome(outputs, recorded))

    return _Program(
        forward,
        dict(zip(call.names, call.tensors, strict=True)),
        [axis] * len(call.names),
        list(reference.outputs),
        spikes,
        [],
        lambda path, document: compare(model, call, axis, path, document, spikes),
    )


def _of_steps(stepper: Stepper) -> _Program:
    """One timestep."""
    first = stepper.first()
    spikes = _spike_names(first)
    numbered = bool(stepper.silenced)
    frames, states = len(stepper.frames[0]), len(stepper.names)

    def forward(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        number = inputs[-1] if numbered else None
        with recorded_spikes(stepper.model) as recorded:
            returned, after = stepper(inputs[:frames], inputs[frames : frames + states], number)
        return (*_with_spikes(Outcome(named(returned), recorded)), *after)

    tensors = [*stepper.frames[0], *stepper.rest]
    names = [*stepper.call.names, *stepper.membranes]
    if numbered:
        tensors.append(torch.zeros(1, dtype=torch.int64, device=tensors[0].device))
        names.append(TIMESTEP)
    return _Program(
        forward,
        dict(zip(names, tensors, strict=True)),
        [0] * (frames + states) + [None] * numbered,
        list(first.outputs),
        spikes,
        stepper.next_membranes,
        lambda path, document: compare_steps(stepper, path, document, spikes, TIMESTEP if numbered else None),
    )


def _spike_names(reference: Outcome) -> list[str]:
    """Names of spikes, those of the output where they are one."""
    outputs = {id(tensor): name for name, tensor in reference.outputs.items()}
    return [
        outputs.get(id(tensor), f"{name}.spikes")
        for name, tensor in zip(reference.spikes.names, reference.spikes.tensors, strict=True)
    ]


def _with_spikes(found: Outcome) -> tuple[Tensor, ...]:
    outputs = list(found.outputs.values())
    return (*outputs, *(each for each in found.spikes.tensors if not any(each is other for other in outputs)))


class _Recordable(nn.Module):
    """A program as torch.export takes it: a forward that leaves no state behind."""

    def __init__(self, model: nn.Module, program: _Program) -> None:
        super().__init__()
        self.model = model
        self.program = program

    def forward(self, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        """Outputs and spikes."""
        self._reset()
        outputs = self.program.forward(inputs)
        self._reset()
        return outputs

    def _reset(self) -> None:
        for module in self.model.modules():
            reset_module(module)


def _advice(error: Exception) -> str:
    """What to write in the place of what fixes the number of samples."""
    fixed = "specialized" in str(error) or "violated" in str(error)
    return "; len(x) and int(...) make the number of samples a constant, x.shape[0] does not" if fixed else ""


def _recorded(model: nn.Module, program: _Program) -> Any:
    """The ModelProto, with spikes that are no outputs of the network behind these among its outputs."""
    any_number = torch.export.Dim.DYNAMIC
    shapes = [None if axis is None else {axis: any_number} for axis in program.axes]
    recordable = _Recordable(model, program).eval()
    # membranes of the example's batch would fix the number of samples
    reset_state(model)
    with placeholders(model) as calls, _quiet():
        try:
            recorded = torch.export.export(
                recordable, (list(program.inputs.values()),), dynamic_shapes=(shapes,), strict=False
            )
        except Exception as error:
            raise ExportError(
                "torch.export cannot record this network's forward, for it depends on values, on the number of "
                f"samples or on what torch does not follow: {_first_line(error)}{_advice(error)}"
            ) from error
        _check_any_number(recorded)
        within = [name for name in program.spikes if name not in program.outputs]
        try:
            written = torch.onnx.export(
                recorded,
                dynamo=True,
                input_names=list(program.inputs),
                output_names=[*program.outputs, *within, *program.states],
                verbose=False,
            )
        except Exception as error:
            raise ExportError(
                f"ONNX, or this version of onnxscript, lacks an operation of this network: {_first_line(error)}"
            ) from error
    document = written.model_proto if written is not None else None
    write_neurons(document, calls)
    _plain(document)
    _name_batch(document, dict(zip(program.inputs, program.axes, strict=True)))
    return document


def _check_any_number(recorded: torch.export.ExportedProgram) -> None:
    """That nothing in a forward depends on how many samples there are; torch takes two or more for granted."""
    for ranges in recorded.range_constraints.values():
        least, most = ranges.lower, ranges.upper
        limited = bool(most < LARGEST)
        if limited or least > 2:
            raise ExportError(
                f"expected a forward that treats any number of samples alike; this one was recorded as it treats "
                f"{least} {f'to {most}' if limited else 'or more'}, and does something else with other numbers: take "
                "out what compares x.shape[0], or cuts a batch into pieces (split, chunk)"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's notes on packages that this export does not need, and on its own use of what is to go."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            # membranes of other packages' neurons, which every forward here resets
            warnings.filterwarnings("ignore", message="The tensor attributes? self")
            yield
    finally:
        logger.setLevel(before)


def _first_line(error: BaseException) -> str:
    """What torch says of an error before it advises its own developers."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}"


def _plain(document: Any) -> None:
    """Without where the network's code lies on this machine; parameters by their names in the network."""
    graph = document.graph
    parts = (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer, graph, document)
    for part in parts:
        del part.metadata_props[:]
    own = {tensor.name: tensor.name.removeprefix("model.") for tensor in graph.initializer}
    for tensor in graph.initializer:
        tensor.name = own[tensor.name]
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = own.get(name, name)


def _name_batch(document: Any, axes: dict[str, int | None]) -> None:
    """Call the number of samples by its name, which torch has replaced by one of its own."""
    graph = document.graph
    own = {
        value.type.tensor_type.shape.dim[axis].dim_param
        for value in graph.input
        if (axis := axes[value.name]) is not None
    }
    for value in (*graph.input, *graph.output, *graph.value_info):
        for each in value.type.tensor_type.shape.dim:
            if each.dim_param in own:
                each.dim_param = BATCH


def _keep_outputs(document: Any, names: set[str]) -> None:
    kept = [value for value in document.graph.output if value.name in names]
    del document.graph.output[:]
    document.graph.output.extend(kept)


def _inputs(document: Any) -> dict[str, str]:
    return {
        value.name: f"[{', '.join(each.dim_param or str(each.dim_value) for each in value.type.tensor_type.shape.dim)}]"
        for value in document.graph.input
    }
