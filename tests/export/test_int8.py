"""Networks in 8-bit integers, by onnxruntime, beside the same in float32."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import dpap
from dpap.export.int8 import quantise
from support.small_digits import digits, small_network

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("unchecked")


def test_weights_are_integers_and_ranges_those_of_the_batches(tmp_path: Path) -> None:
    images, _, others, _ = digits(128)
    model = small_network().eval()
    path, out = dpap.export_onnx(model, images[:8], tmp_path / "small.onnx").path, tmp_path / "int8.onnx"
    given: list[Tensor] = []

    def batches() -> Iterator[Tensor]:
        for batch in (images[:64], 3 * images[64:]):
            given.append(batch)
            yield batch

    size = quantise(path, batches(), out)
    assert size == out.stat().st_size
    assert len(given) == 2
    written = onnx.load(str(out))
    large = [tensor for tensor in written.graph.initializer if np.prod(tensor.dims) > 100]
    assert large
    assert {tensor.data_type for tensor in large} == {onnx.TensorProto.INT8}
    # the range of the input reaches as far as that of the batches, in 255 steps
    scale = next(node.input[1] for node in written.graph.node if node.op_type == "QuantizeLinear"
                 and node.input[0] == "input")  # fmt: skip
    (value,) = (onnx.numpy_helper.to_array(t) for t in written.graph.initializer if t.name == scale)
    assert value * 255 == pytest.approx(3 * float(images[64:].max()), rel=0.01)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": others.numpy()})
    with torch.no_grad():
        expected = model(others)
    assert 0 < np.abs(found - expected.numpy()).max() < 0.1 * float(expected.abs().max())


def test_a_file_that_cannot_be_quantised(tmp_path: Path) -> None:
    path = dpap.export_onnx(small_network(), digits(8)[0], tmp_path / "small.onnx").path
    with pytest.raises(dpap.ExportError, match="onnxruntime cannot quantise"):
        quantise(path, iter(()), tmp_path / "int8.onnx")
