"""Readers of data sets as they lie on disk."""

from dpap.data.bundle import DataBundle, check_data, load_data
from dpap.data.config import DataConfig
from dpap.data.registry import list_datasets
from dpap.data.split import Split

__all__ = ["DataBundle", "DataConfig", "Split", "check_data", "list_datasets", "load_data"]
