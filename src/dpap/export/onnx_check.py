"""ONNX files beside PyTorch, on the same inputs."""

from collections.abc import Callable
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
    """Adds up what is compared.

    Args:
        model: the network; where none is given its precision is that of its outputs.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        self.difference = self.largest = self.precision = 0.0
        self.flipped = self.spikes = self.fired = 0
        for parameter in model.parameters() if model is not None else ():
            self._round(parameter)

    def _round(self, tensor: Tensor) -> None:
        if tensor.is_floating_point():
            self.precision = max(self.precision, torch.finfo(tensor.dtype).eps)

    def outputs(self, found: Arrays, reference: dict[str, Tensor]) -> None:
        """Outputs by name."""
        for name, expected in reference.items():
            self._round(expected)
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

    def add(self, other: "Difference") -> None:
        """What was compared elsewhere too."""
        self.difference = max(self.difference, other.difference)
        self.largest = max(self.largest, other.largest)
        self.precision = max(self.precision, other.precision)
        self.flipped += other.flipped
        self.spikes += other.spikes
        self.fired += other.fired

    def comparison(self, samples: int) -> Comparison:
        """What came out."""
        counts = (self.flipped, self.spikes, self.fired)
        return Comparison(samples, self.difference, self.largest, *counts, self.precision)


def compare(
    model: nn.Module, call: Call, axis: int, path: Path, document: Any, spikes: list[str]
) -> Comparison:
    """A whole presentation of the example, of more samples, and of one.

    Args:
        model: the network.
        call: the example.
        axis: that counts samples.
        path: of the file.
        document: the same, with spikes among its outputs.
        spikes: their names, in the order in which neurons are called.
    """
    file, inside = session(path), session(document) if spikes else None

    def compared(samples: int) -> Difference | None:
        each = call.of_samples(axis, samples)
        try:
            reference = outcome(model, lambda: each.run(model, each.tensors))
        except Exception:  # the network itself takes no such number
            return None
        found = Difference(model)
        feed = {name: _array(tensor) for name, tensor in zip(call.names, each.tensors, strict=True)}
        found.outputs(run(file, feed), reference.outputs)
        if inside is not None:
            _spikes(found, run(inside, feed), reference, spikes)
        return found

    return _of_numbers(compared, call.tensors[0].shape[axis])


def compare_steps(
    stepper: Stepper, path: Path, document: Any, spikes: list[str], timestep: str | None
) -> Comparison:
    """The same, timestep by timestep; arguments as those of `compare`."""
    sessions = ((session(path), False), (session(document), True))

    def compared(samples: int) -> Difference | None:
        own = stepper.of_samples(samples)
        try:
            references = own.whole()
        except Exception:  # the network itself takes no such number
            return None
        found = Difference(stepper.model)
        for each, watched in sessions:
            states = {name: _array(v) for name, v in zip(own.membranes, own.rest, strict=True)}
            for t, reference in enumerate(references):
                frame = dict(zip(own.call.names, map(_array, own.frames[t]), strict=True))
                number = {} if timestep is None else {timestep: np.asarray([t])}
                results = run(each, {**frame, **states, **number})
                states = {
                    name: results[after]
                    for name, after in zip(own.membranes, own.next_membranes, strict=True)
                }
                if watched:
                    _spikes(found, results, reference, spikes)
                else:
                    found.outputs(results, reference.outputs)
        return found

    return _of_numbers(compared, len(stepper.rest[0]))


def _of_numbers(compared: Callable[[int], Difference | None], example: int) -> Comparison:
    """What came out for the example's number of samples, for more, an odd number, and for one.

    Raises:
        ExportError: where it holds for the example's alone.
    """
    total, count = Difference(), 0
    for samples in (example, 2 * example + 1, 1):
        why = None
        try:
            found = compared(samples)
        except Exception as error:  # those of onnxruntime have no class of their own in common
            if samples == example:
                raise
            found, why = None, str(error).strip()
        if found is not None:
            right = total.comparison(count).agrees
            total.add(found)
            count += samples
            # with spikes that flip, all are judged together
            if right and samples != example and not (found.flipped or found.comparison(samples).agrees):
                why = f"outputs differ by {found.difference:.2g}"
        if why is not None:
            raise ExportError(
                f"the file computes what the network does for {example} samples, as in the example, and not for "
                f"{samples} ({why}): the forward treats that number in another way, as by if x.shape[0] > 1; let it "
                "treat any number alike"
            )
    return total.comparison(count)


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
