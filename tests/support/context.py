"""Contexts of layers, which criteria get in tests."""

import torch

from dpap.plasticity import LayerContext, Statistics


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).double()


def spikes(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.bernoulli(rand(*shape, seed=seed), generator=torch.Generator().manual_seed(seed + 1))


def context(
    statistics: Statistics,
    weight: torch.Tensor | None = None,
    *,
    name: str = "fc",
    epoch: int = 0,
    seed: int = 0,
) -> LayerContext:
    given = torch.zeros(len(statistics.units), 4) if weight is None else weight
    return LayerContext(statistics, lambda: given, name, epoch, seed)
