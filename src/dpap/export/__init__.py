"""Networks for other programs: ONNX, NIR, folders for hubs. No package is imported before it is needed."""

from dpap.export.hub import export_hub
from dpap.export.report import Comparison, ExportError, ExportReport
from dpap.export.to_nir import export_nir
from dpap.export.to_onnx import export_onnx

__all__ = ["Comparison", "ExportError", "ExportReport", "export_hub", "export_nir", "export_onnx"]
