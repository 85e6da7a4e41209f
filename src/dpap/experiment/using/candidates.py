"""A run's network as it can be used here: dense, silenced and compact, in PyTorch and onnxruntime, and in 8 bits."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dpap.data import DataBundle, Split
from dpap.data.partition import share
from dpap.experiment.errors import UserError
from dpap.experiment.learner import EXAMPLES, apply_memory_format, build_model
from dpap.experiment.using.deployed import Deployed
from dpap.export.int8 import quantise
from dpap.export.onnx_check import session
from dpap.export.report import ExportError
from dpap.export.requirements import required
from dpap.export.to_onnx import export_onnx
from dpap.surgery import CompactionError
from dpap.surgery.padding import padded

PYTORCH, ONNXRUNTIME = "PyTorch", "onnxruntime"
RUNTIMES = (PYTORCH, ONNXRUNTIME)
DENSE, SILENCED, COMPACT, INT8 = "dense", "silenced", "compact", "compact, int8"
BATCH = 64  # calibration samples at a time
SPIKING = (
    "8-bit integers are for networks that do not spike: a membrane that is rounded to 256 levels crosses its threshold "
    "at other timesteps"
)


@dataclass(frozen=True)
class Candidate:
    """A network and what runs it.

    Attributes:
        network: one of DENSE, SILENCED, COMPACT, INT8.
        runtime: one of RUNTIMES.
        device: where its samples are.
        forward: of samples, to logits [B, classes].
        bytes: of its file.
    """

    network: str
    runtime: str
    device: torch.device
    forward: Callable[[Tensor], Tensor]
    bytes: int | None = None


@dataclass(frozen=True)
class LeftOut:
    """What cannot be had here, and why."""

    what: str
    why: str


def candidates(
    run: Deployed,
    data: DataBundle,
    calibration: Callable[[], Iterator[Tensor]],
    *,
    runtimes: tuple[str, ...],
    beside_dense: bool,
    folder: Path,
) -> Iterator[Candidate | LeftOut]:
    """Everything that can run here.

    Args:
        run: the network.
        data: samples on which files are compared with PyTorch.
        calibration: batches of training samples, for 8-bit integers.
        runtimes: what is asked for.
        beside_dense: with the dense network, which is untrained, and the silenced one.
        folder: for files.
    """
    example, models = samples_of(data.test, EXAMPLES), {COMPACT: run.model}
    if beside_dense:
        try:
            silenced = {SILENCED: padded(run.model, _dense(run), example.to(run.device))}
        except CompactionError as error:
            silenced = {}
            yield LeftOut(SILENCED, str(error))
        models = {DENSE: _dense(run), **silenced, **models}
    if PYTORCH in runtimes:
        stored = run.folder.model.stat().st_size
        for name, model in models.items():
            yield Candidate(name, PYTORCH, run.device, model, stored if name == COMPACT else None)
    if ONNXRUNTIME not in runtimes:
        return
    try:
        required("export", "onnx", "onnxscript", "onnxruntime")
        for name, model in models.items():
            path = folder / f"{name}.onnx"
            try:
                export_onnx(_on_the_processor(model), example, path)
                yield _in_onnxruntime(name, path)
                if name == COMPACT:
                    yield _in_int8(run, path, calibration)
            except ExportError as error:
                yield LeftOut(f"{name}, {ONNXRUNTIME}", str(error))
    except ImportError as error:
        yield LeftOut(ONNXRUNTIME, str(error))


def samples_of(split: Split, count: int) -> Tensor:
    """The first samples of a split, from its beginning again where it has fewer."""
    x = next(iter(split.batches(count)))[0]
    axis = 1 if x.ndim == 5 else 0
    repeats = -(-count // x.shape[axis])
    return torch.cat([x] * repeats, axis).narrow(axis, 0, count).contiguous()


def calibration_samples(data: DataBundle, count: int) -> Iterator[Tensor]:
    """Training samples, stratified and never augmented, in batches."""
    train = data.train.plain()
    if count < len(train):
        train = train.subset(share(train.labels, count, seed=0)[0])
    return (x for x, _ in train.batches(BATCH))


def _dense(run: Deployed) -> nn.Module:
    model = build_model(run.config, run.kind, run.device).eval()
    apply_memory_format(model, run.config.training)
    return model


def _on_the_processor(model: nn.Module) -> nn.Module:
    cpu = torch.device("cpu")
    return model if all(each.device == cpu for each in model.parameters()) else copy.deepcopy(model).to(cpu)


def _in_onnxruntime(network: str, path: Path) -> Candidate:
    runner = session(path)
    (given,), (returned,) = runner.get_inputs(), runner.get_outputs()

    def forward(x: Tensor) -> Tensor:
        return torch.from_numpy(runner.run([returned.name], {given.name: x.numpy()})[0])

    return Candidate(network, ONNXRUNTIME, torch.device("cpu"), forward, path.stat().st_size)


def _in_int8(run: Deployed, path: Path, calibration: Callable[[], Iterator[Tensor]]) -> Candidate | LeftOut:
    if run.config.network.spiking:
        return LeftOut(INT8, SPIKING)
    quantised = path.with_name("int8.onnx")
    try:
        quantise(path, calibration(), quantised)
        return _in_onnxruntime(INT8, quantised)
    except (UserError, ExportError) as error:
        return LeftOut(INT8, str(error))
