"""Fully connected layers of which nearly all synapses are dead, computed by sparse products."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST_DEAD = 0.95
"""Share of a matrix that is zero from which a sparse product pays; docs/export.md has the measurement."""
LEAST_WEIGHTS = 1 << 19
"""Weights from which it does at any batch size: smaller matrices lie in the processor's caches."""


@dataclass(frozen=True)
class SparseReport:
    """Which layers are computed by sparse products.

    Attributes:
        sparse: name of a layer -> share of its weights that are zero.
        dense: name of a layer that is left as it is -> why.

    Example:
        >>> import dpap
        >>> print(dpap.SparseReport({"fc1": 0.97}, {"fc2": "it has 80 weights of 524,288"}))
        fc1: sparse, 97.0% of its weights are zero
        fc2: as it is, it has 80 weights of 524,288
    """

    sparse: dict[str, float]
    dense: dict[str, str]

    def __str__(self) -> str:
        lines = [
            f"{name}: sparse, {share:.1%} of its weights are zero" for name, share in self.sparse.items()
        ]
        return "\n".join([*lines, *(f"{name}: as it is, {why}" for name, why in self.dense.items())])


@contextmanager
def sparse_execution(
    model: nn.Module, least_dead: float = LEAST_DEAD, least_weights: int = LEAST_WEIGHTS
) -> Iterator[SparseReport]:
    """Compute fully connected layers with few alive synapses by sparse products, within the block, on the CPU.

    Sums are added in another order, so results differ by rounding, and a spiking neuron may flip. In training mode, and
    where gradients are recorded, layers compute as ever. Afterwards the network is as it was.

    Args:
        model: the network; its weights must stay as they are within the block.
        least_dead: share of a matrix that must be zero.
        least_weights: weights that it must have.

    Raises:
        ValueError: where the share is not between 0 and 1.

    Example:
        >>> import torch, dpap
        >>> from torch import nn
        >>> layer = nn.Linear(2048, 512)
        >>> _ = nn.init.sparse_(layer.weight, 0.99)
        >>> model = nn.Sequential(layer, nn.ReLU(), nn.Linear(512, 10)).eval()
        >>> with torch.no_grad(), dpap.sparse_execution(model) as report:
        ...     logits = model(torch.rand(4, 2048))
        >>> list(report.sparse), list(report.dense)
        (['0'], ['2'])
    """
    if not 0 <= least_dead <= 1:
        raise ValueError(f"least_dead is a share, from 0 to 1; got {least_dead}")
    report = SparseReport({}, {})
    changed: list[nn.Module] = []
    try:
        for name, module in model.named_modules():
            if not isinstance(module, nn.Linear):
                continue
            why = _unfit(module, least_dead, least_weights)
            if why is not None:
                report.dense[name] = why
                continue
            report.sparse[name] = _dead(module)
            module.__dict__["forward"] = _product(name, module)
            changed.append(module)
        yield report
    finally:
        for module in changed:
            del module.__dict__["forward"]


def _dead(module: nn.Linear) -> float:
    return 1 - int(module.weight.count_nonzero()) / max(module.weight.numel(), 1)


def _unfit(module: nn.Linear, least_dead: float, least_weights: int) -> str | None:
    """Why a layer is left as it is."""
    if type(module).forward is not nn.Linear.forward or "forward" in module.__dict__:
        return "its forward is not that of nn.Linear"
    weight = module.weight
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.float64):
        return f"it is {weight.dtype} on {weight.device.type}; sparse products are of float32 or float64 on a CPU"
    if weight.numel() < least_weights:
        return f"it has {weight.numel():,} weights of {least_weights:,}"
    if _dead(module) < least_dead:
        return f"{_dead(module):.1%} of its weights are zero, of {least_dead:.0%}"
    return None


def _product(name: str, module: nn.Linear) -> Callable[[Tensor], Tensor]:
    weight = module.weight
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Sparse CSR tensor support is in beta", category=UserWarning
        )
        version, matrix = weight._version, weight.detach().to_sparse_csr()

    def forward(input: Tensor) -> Tensor:
        if module.training or torch.is_grad_enabled() or input.dtype != weight.dtype:
            return F.linear(input, module.weight, module.bias)
        if module.weight is not weight or weight._version != version or weight.shape != matrix.shape:
            raise RuntimeError(f"the weight of {name} changed within sparse_execution: begin the block anew")
        rows = input.reshape(-1, input.shape[-1])
        # a product with one vector takes half the time of one with a matrix of one column
        product = (matrix @ rows[0])[None] if len(rows) == 1 else (matrix @ rows.T).T
        if module.bias is not None:
            product = product + module.bias
        return product.reshape(*input.shape[:-1], weight.shape[0])

    return forward
