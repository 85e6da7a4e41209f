"""Figures and HTML pages from the recorded numbers of a run or a comparison alone."""

from dpap.report.comparison import write_comparison
from dpap.report.page import write_report
from dpap.report.side_by_side import write_side_by_side

__all__ = ["write_comparison", "write_report", "write_side_by_side"]
