"""Figures and an HTML page from a run's recorded numbers alone."""

from dpap.report.page import write_report

__all__ = ["write_report"]
