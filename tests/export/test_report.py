from pathlib import Path

import pytest
import torch

from dpap.export.report import Comparison, ExportError, ExportReport

REPORT = ExportReport(Path("small.onnx"), "ONNX", 51, 12_345, {"input": "[batch, 1, 8, 8]"})


@pytest.mark.parametrize(
    ("comparison", "agrees"),
    [
        (Comparison(4, 1e-6, 1.0, 0, 0, 0), True),
        (Comparison(4, 1e-3, 1.0, 0, 0, 0), False),
        (Comparison(4, 1e-3, 100.0, 0, 0, 0), True),
        (
            Comparison(4, 0.3, 1.0, 2, 10_000, 10_000),
            True,
        ),  # rounding at a threshold, and what comes after it
        (Comparison(4, 0.3, 1.0, 50, 10_000, 10_000), False),
        (Comparison(4, 0.3, 1.0, 0, 10_000, 10_000), False),
        (Comparison(4, float("nan"), 1.0, 0, 0, 0), False),
        (Comparison(4, 5e-3, 1.0, 0, 0, 0, torch.finfo(torch.float16).eps), True),
        (Comparison(4, 2e-2, 1.0, 0, 0, 0, torch.finfo(torch.float16).eps), False),
    ],
)
def test_rounding_is_told_from_errors(comparison: Comparison, agrees: bool) -> None:
    assert comparison.agrees is agrees
    if agrees:
        assert REPORT.compared(comparison, "onnxruntime").comparison == comparison
    else:
        with pytest.raises(ExportError, match="does not compute what the network computes"):
            REPORT.compared(comparison, "onnxruntime")


def test_in_words() -> None:
    compared = REPORT.compared(Comparison(8, 1.5e-7, 3.25, 1, 12_000, 12_000), "onnxruntime")
    assert str(compared) == (
        "small.onnx: ONNX, 51 nodes, 12,345 bytes; reads input [batch, 1, 8, 8]\n"
        "onnxruntime beside PyTorch on 8 samples, largest difference 1.5e-07 of outputs up to 3.25, "
        "1 of 12,000 spikes flipped"
    )
    assert "not compared with PyTorch: onnxruntime is not installed" in str(
        REPORT.unchecked("onnxruntime is not installed")
    )
    assert "no neuron fires on this example" in str(Comparison(8, 0.0, 0.0, 0, 12_000, 0))
