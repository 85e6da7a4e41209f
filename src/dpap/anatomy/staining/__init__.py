"""Staining: which unit feeds which feature, whatever lies in between."""
