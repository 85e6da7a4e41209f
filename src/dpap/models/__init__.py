"""The networks of Table I, residual or in its notation, and others like them."""

from dpap.models.config import NetworkConfig
from dpap.models.networks import SpikingNetwork, build_network, initialise
from dpap.models.notation import PRESETS
from dpap.models.resnet import RESNETS

__all__ = ["PRESETS", "RESNETS", "NetworkConfig", "SpikingNetwork", "build_network", "initialise"]
