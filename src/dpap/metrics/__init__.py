"""What a network costs: parameters, MACs, synaptic operations, energy, latency."""

from dpap.metrics.compute import latencies, latency, macs
from dpap.metrics.energy import energy, inference_picojoules, pruned_energy
from dpap.metrics.size import LayerWeights, Weights, parameters, weights
from dpap.metrics.synaptic import LayerOperations, SynapticOperations, synaptic_operations

__all__ = [
    "LayerOperations",
    "LayerWeights",
    "SynapticOperations",
    "Weights",
    "energy",
    "inference_picojoules",
    "latencies",
    "latency",
    "macs",
    "parameters",
    "pruned_energy",
    "synaptic_operations",
    "weights",
]
