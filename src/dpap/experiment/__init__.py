"""A run from configuration to summary, and the comparison of runs."""
