"""Results of runs that were never run."""

from typing import Any

from dpap.experiment.comparing.results import Result


def made(method: str, seed: int, accuracy: float, target: float | None = None, **fields: Any) -> Result:
    """A result with the fields that matter to a test; a method that prunes meets its target."""
    died = 0.0 if method == "dense" else 0.5 if target is None else target
    values: dict[str, Any] = {
        "recipe": "digits",
        "network": "4C3-12FC-10FC",
        "data": "digits",
        "method": method,
        "target": target,
        "target_of": "weights",
        "seed": seed,
        "protocol": "validation",
        "epochs": 3,
        "accuracy": accuracy,
        "final_epoch": 3,
        "best_epoch": 2,
        "best_accuracy": accuracy,
        "sparsity": died,
        "timestep_sparsity": 0.0,
        "achieved": None if method == "dense" else died,
        "converged": None,
        "seconds_to_converge": None,
        "parameters": 1000,
        "weights": 900,
        "macs": 5000,
        "synaptic_operations": 100.5,
        "energy": 1e-9,
        "picojoules": 2.0e6,
        "latency_seconds": 1e-3,
        "first_seconds": 1.0,
        "last_seconds": 0.5,
        "seconds": 3.0,
        "model_bytes": 4000,
        "run": f"{method}-{target}-seed{seed}",
    }
    return Result(**{**values, **fields})
