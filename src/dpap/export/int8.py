"""ONNX files in 8-bit integers, by the static quantisation of onnxruntime."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor

from dpap.export.report import ExportError
from dpap.export.requirements import required


def quantise(path: Path, batches: Iterable[Tensor], out: Path) -> int:
    """Write a network in 8-bit integers: weights by output channel, activations by their range on samples.

    Operations stay as they are, between nodes that quantise and dequantise (QDQ), which runtimes fuse.

    Args:
        path: ONNX file of one input, in float32.
        batches: of training data, on which the ranges are measured.
        out: path of the file.

    Returns:
        Bytes of the file.

    Raises:
        ImportError: where onnx or onnxruntime is not installed.
        ExportError: where onnxruntime cannot quantise the file.
    """
    onnx, quantization, preparation = required(
        "export", "onnx", "onnxruntime.quantization", "onnxruntime.quantization.shape_inference"
    )
    (name,) = (each.name for each in onnx.load(str(path), load_external_data=False).graph.input)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined]
        def __init__(self) -> None:
            self.left: Iterator[Tensor] = iter(batches)

        def get_next(self) -> dict[str, object] | None:
            batch = next(self.left, None)
            return None if batch is None else {name: batch.cpu().numpy()}

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        try:
            preparation.quant_pre_process(str(path), str(prepared))
            quantization.quantize_static(
                str(prepared),
                str(out),
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        except Exception as error:  # its errors have no class of their own in common
            raise ExportError(
                f"onnxruntime cannot quantise the network: {type(error).__name__}: {error}"
            ) from error
    return out.stat().st_size
