"""Networks for other programs: ONNX and NIR files. Neither package is imported before it is needed."""

from dpap.export.report import Comparison, ExportError, ExportReport
from dpap.export.to_nir import export_nir
from dpap.export.to_onnx import export_onnx

__all__ = ["Comparison", "ExportError", "ExportReport", "export_nir", "export_onnx"]
