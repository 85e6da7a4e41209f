"""Energy: the paper's estimate, equations (14) and (15), and picojoules from counted operations."""

from dpap.metrics.synaptic import SynapticOperations

PICOJOULES_MAC = 4.6
"""One 32-bit float multiply (3.7) and add (0.9) in 45 nm: M. Horowitz, ISSCC 2014,
doi 10.1109/ISSCC.2014.6757323."""

PICOJOULES_AC = 0.9
"""One 32-bit float add in 45 nm, from the same source."""


def energy(flops: float, timesteps: int, per_operation: float = PICOJOULES_AC) -> float:
    """E = FLOPs E_AC T, (14), in picojoules: a dense inference; `flops` are those of one timestep."""
    return flops * per_operation * timesteps


def pruned_energy(dense: float, weight_sparsity: float, timestep_sparsity: float) -> float:
    """(1 - rho_w)(1 - rho_t) E, (15), in the unit of `dense`; with `dense` 100 it is the paper's percentage.

    Raises:
        ValueError: a sparsity is not a share.
    """
    for name, share in (("weight_sparsity", weight_sparsity), ("timestep_sparsity", timestep_sparsity)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} is the share that is pruned, in [0, 1]; got {share}")
    return (1 - weight_sparsity) * (1 - timestep_sparsity) * dense


def inference_picojoules(operations: SynapticOperations) -> float:
    """Energy of one sample's inference from counted operations, in picojoules.

    Layers with spiking input add (AC), those with analogue input multiply and add (MAC).
    """
    return operations.accumulates * PICOJOULES_AC + operations.multiplies * PICOJOULES_MAC
