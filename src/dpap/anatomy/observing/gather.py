"""Sums over the features that each unit of a layer feeds."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn


class FeatureSums:
    """Sums values of a reader's features over the units that feed them.

    Args:
        fed: which unit feeds each feature; below 0 where none does, or several.
        units: of the layer.
    """

    def __init__(self, fed: Int64[Tensor, " feature"], units: int) -> None:
        self._one_to_one = len(fed) == units and bool((fed == torch.arange(units)).all())
        if self._one_to_one:
            return
        features = torch.argsort(fed, stable=True)[int((fed < 0).sum()) :]
        fed_by = fed[features]
        counts = torch.bincount(fed_by, minlength=units)
        # a table of each unit's features, filled up with one that is always zero: adding by index has no fixed order
        self._table = torch.full((units, int(counts.max())), len(fed))
        self._table[fed_by, torch.arange(len(fed_by)) - (counts.cumsum(0) - counts)[fed_by]] = features

    def __call__(self, values: Float[Tensor, "*lead feature"]) -> Float[Tensor, "*lead unit"]:
        """The sums, in at least single precision; the values themselves where each unit feeds one feature."""
        if self._one_to_one:
            return values
        if self._table.device != values.device:
            self._table = self._table.to(values.device)
        precision = torch.promote_types(values.dtype, torch.float32)
        return nn.functional.pad(values, (0, 1))[..., self._table].sum(-1, dtype=precision)
