"""Which samples go together: stratified, seeded, disjoint."""

import torch
from jaxtyping import Int64
from torch import Tensor


def stratified_order(labels: Int64[Tensor, "sample"], seed: int) -> Int64[Tensor, "sample"]:
    """A random order in which every stretch holds the classes in their overall proportions.

    The k-th of a class's n samples (in random order) stands at (k + 1/2) / n of the way, so what stands
    before place p is the share p of every class, to within half a sample.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    place = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        members = shuffled[labels[shuffled] == label]
        place[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    # Sorted by class first, so that the stable sort resolves equal places by class, not by chance.
    by_class = torch.argsort(labels, stable=True)
    return by_class[torch.argsort(place[by_class], stable=True)]


def share(
    labels: Int64[Tensor, "sample"], count: int, seed: int
) -> tuple[Int64[Tensor, "chosen"], Int64[Tensor, "rest"]]:
    """Positions of `count` stratified samples and of the others, both ascending."""
    order = stratified_order(labels, seed)
    return order[:count].sort().values, order[count:].sort().values


def fold(
    labels: Int64[Tensor, "sample"], folds: int, number: int, seed: int
) -> tuple[Int64[Tensor, "inside"], Int64[Tensor, "outside"]]:
    """Positions inside and outside of part `number` of `folds`, both ascending; sizes differ by at most one.

    Raises:
        ValueError: there are fewer samples than folds.
    """
    samples = len(labels)
    if folds > samples:
        raise ValueError(f"folds must not exceed the number of samples, {samples}; got {folds}")
    order = stratified_order(labels, seed)
    first, last = number * samples // folds, (number + 1) * samples // folds
    return order[first:last].sort().values, torch.cat([order[:first], order[last:]]).sort().values
