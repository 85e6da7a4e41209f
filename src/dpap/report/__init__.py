"""Figures and HTML pages from the recorded numbers of a run or a comparison alone."""

from dpap.report.comparison import write_comparison
from dpap.report.page import write_report

__all__ = ["write_comparison", "write_report"]
