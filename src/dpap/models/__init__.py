"""The networks of Table I, and any other feed-forward network in its notation."""

from dpap.models.config import NetworkConfig
from dpap.models.networks import SpikingNetwork, build_network
from dpap.models.notation import PRESETS

__all__ = ["PRESETS", "NetworkConfig", "SpikingNetwork", "build_network"]
