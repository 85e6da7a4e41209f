"""Energy: the paper's estimate, equations (14) and (15), and picojoules from counted operations."""

from dpap.metrics.synaptic import SynapticOperations
from dpap.pruning.costs import PICOJOULES_AC, PICOJOULES_MAC


def energy(flops: float, timesteps: int, per_operation: float = PICOJOULES_AC) -> float:
    """E = FLOPs E_AC T, (14), in picojoules: a dense inference; `flops` are those of one timestep.

    Example:
        >>> from dpap.metrics import energy
        >>> energy(flops=1000.0, timesteps=8)
        7200.0
    """
    return flops * per_operation * timesteps


def pruned_energy(dense: float, weight_sparsity: float, timestep_sparsity: float) -> float:
    """(1 - rho_w)(1 - rho_t) E, (15), in the unit of `dense`; with `dense` 100 it is the paper's percentage.

    Raises:
        ValueError: a sparsity is not a share.

    Example:
        >>> from dpap.metrics import pruned_energy
        >>> pruned_energy(100.0, weight_sparsity=0.5, timestep_sparsity=0.2)
        40.0
    """
    for name, share in (("weight_sparsity", weight_sparsity), ("timestep_sparsity", timestep_sparsity)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} is the share that is pruned, in [0, 1]; got {share}")
    return (1 - weight_sparsity) * (1 - timestep_sparsity) * dense


def inference_picojoules(operations: SynapticOperations) -> float:
    """Energy of one sample's inference from counted operations, in picojoules.

    Layers that spikes or counts of spikes enter add (AC), those with analogue input multiply and add (MAC); see
    `LayerOperations.additions`. Reading memory, membranes and normalisation are not counted.

    Example:
        >>> import torch
        >>> from dpap.metrics import inference_picojoules, synaptic_operations
        >>> layer, spikes = torch.nn.Linear(4, 10), torch.tensor([[1.0, 0.0, 0.0, 1.0]])
        >>> inference_picojoules(synaptic_operations(layer, [spikes]))  # 20 additions
        18.0
        >>> inference_picojoules(synaptic_operations(layer, [torch.rand(1, 4)]))  # 40 multiplications
        184.0
    """
    return operations.accumulates * PICOJOULES_AC + operations.multiplies * PICOJOULES_MAC
