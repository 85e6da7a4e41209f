"""Binary codes of units: the passes in which a feature was dyed give the unit that feeds it.

All codewords hold the same number of passes, so the union of several is never a codeword, and a feature that different
units reach is recognised as mixed.
"""

from itertools import combinations, islice
from math import comb

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

Feeds = dict[str, Int64[Tensor, "_"]]
"""Source layer -> its unit that feeds each feature (`NO_UNIT` where none does)."""

INPUT = "<input>"
"""Name under which the network's own input is dyed."""
NO_UNIT = -1
"""Instead of a unit: none of the source feeds this feature."""
MIXED = -2
"""Instead of a unit: several of the source feed this feature."""


def codewords(units: int) -> Bool[Tensor, "unit bit"]:
    """One codeword a unit, all of the same weight, as short as possible."""
    bits = 1
    while comb(bits, bits // 2) < units:
        bits += 1
    words = torch.zeros(units, bits, dtype=torch.bool)
    if bits == 1:
        words[:] = True
        return words
    chosen = torch.tensor(list(islice(combinations(range(bits), bits // 2), units)))
    return words.scatter_(1, chosen, True)


def decode(
    code: Bool[Tensor, "feature bit"], dyed: Bool[Tensor, " feature"], words: Bool[Tensor, "unit bit"]
) -> Int64[Tensor, " feature"]:
    """Unit that feeds each feature.

    Args:
        code: which passes dyed each feature.
        dyed: which features the source dyes at all.
        words: those of its units.
    """
    numbers, order = torch.sort(numbers_of(words))
    observed = numbers_of(code)
    place = torch.searchsorted(numbers, observed).clamp(max=len(words) - 1)
    fed = torch.where(numbers[place] == observed, order[place], MIXED)
    return torch.where(dyed, fed, NO_UNIT)


def numbers_of(codes: Bool[Tensor, "code bit"]) -> Int64[Tensor, " code"]:
    """Each code as a number."""
    return (codes * (1 << torch.arange(codes.shape[1]))).sum(1)
