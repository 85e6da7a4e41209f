"""Comparisons: many runs of several methods, beside their dense twins."""
