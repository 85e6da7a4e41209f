"""ONNX files beside PyTorch, on the same inputs."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpap.export.calls import Call, Outcome, outcome
from dpap.export.report import Comparison, ExportError
from dpap.export.streaming import Stepper

Arrays = dict[str, Any]


class Difference:
    """Adds up what is compared."""

    def __init__(self) -> None:
        self.difference = self.largest = 0.0
        self.flipped = self.spikes = self.fired = 0

    def outputs(self, found: Arrays, reference: dict[str, Tensor]) -> None:
        """Outputs by name."""
        for name, expected in reference.items():
            ours, theirs = _array(expected), np.asarray(found[name])
            if ours.shape != theirs.shape:
                raise ExportError(f"output {name} has shape {theirs.shape} instead of {ours.shape}")
            if ours.size:
                ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
                same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
                apart = np.where(same, 0.0, np.abs(ours - theirs))
                self.difference = max(self.difference, float(np.nan_to_num(apart, nan=np.inf).max()))
                self.largest = max(self.largest, float(np.abs(ours).max()))

    def emitted(self, found: Any, reference: Tensor) -> None:
        """Spikes of one layer."""
        self.flipped += int(np.count_nonzero(np.asarray(found) != _array(reference)))
        self.spikes += reference.numel()
        self.fired += int(reference.count_nonzero())

    def comparison(self, samples: int) -> Comparison:
        """What came out."""
        return Comparison(samples, self.difference, self.largest, self.flipped, self.spikes, self.fired)


def compare(
    model: nn.Module, call: Call, axis: int, path: Path, document: Any, spikes: list[str]
) -> Comparison:
    """A whole presentation of the example, and of twice its samples.

    Args:
        model: the network.
        call: the example.
        axis: that counts samples.
        path: of the file.
        document: the same, with spikes among its outputs.
        spikes: their names, in the order in which neurons are called.
    """
    file, inside = session(path), session(document) if spikes else None
    found = Difference()
    samples = 0
    for each in (call, call.doubled(axis)):
        reference = outcome(model, lambda each=each: each.run(model, each.tensors))  # type: ignore[misc]
        feed = {name: _array(tensor) for name, tensor in zip(call.names, each.tensors, strict=True)}
        found.outputs(run(file, feed), reference.outputs)
        if inside is not None:
            _spikes(found, run(inside, feed), reference, spikes)
        samples += each.tensors[0].shape[axis]
    return found.comparison(samples)


def compare_steps(
    stepper: Stepper, path: Path, document: Any, spikes: list[str], timestep: str | None
) -> Comparison:
    """The example, timestep by timestep; arguments as those of `compare`."""
    found = Difference()
    for each, watched in ((session(path), False), (session(document), True)):
        states = {name: _array(v) for name, v in zip(stepper.membranes, stepper.rest, strict=True)}
        for t, reference in enumerate(stepper.whole()):
            frame = dict(zip(stepper.call.names, map(_array, stepper.frames[t]), strict=True))
            number = {} if timestep is None else {timestep: np.asarray([t])}
            results = run(each, {**frame, **states, **number})
            states = {
                name: results[after]
                for name, after in zip(stepper.membranes, stepper.next_membranes, strict=True)
            }
            if watched:
                _spikes(found, results, reference, spikes)
            else:
                found.outputs(results, reference.outputs)
    return found.comparison(len(stepper.rest[0]))


def session(file: Path | Any) -> Any:
    """Of onnxruntime, on the CPU, with as many threads as torch.

    Raises:
        ExportError: where it cannot run the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    content = str(file) if isinstance(file, Path) else file.SerializeToString()
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class of their own in common
        raise ExportError(
            f"onnxruntime cannot run the file: {error}; on a CPU it takes float32 networks best: export model.float()"
        ) from error


def run(session: Any, feed: Arrays) -> Arrays:
    """Outputs by name."""
    names = [each.name for each in session.get_outputs()]
    taken = {each.name for each in session.get_inputs()}
    results = session.run(names, {name: array for name, array in feed.items() if name in taken})
    return dict(zip(names, results, strict=True))


def _spikes(found: Difference, results: Arrays, reference: Outcome, names: list[str]) -> None:
    for name, expected in zip(names, reference.spikes.tensors, strict=True):
        found.emitted(results[name], expected)


def _array(tensor: Tensor) -> Any:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
