"""Tensors are found, and changed, in whatever containers a network takes and returns."""

from typing import NamedTuple

import torch
from torch import Tensor

from dpap.anatomy.pytrees import float_tensors, map_floats


class Pair(NamedTuple):
    spikes: Tensor
    count: int


NESTED = {
    "a": [torch.ones(2), torch.ones(2, dtype=torch.int64)],
    "b": (Pair(torch.zeros(3), 7), None, "text"),
}


def test_floating_point_tensors_are_found_in_order() -> None:
    assert [tuple(tensor.shape) for tensor in float_tensors(NESTED)] == [(2,), (3,)]


def test_only_they_are_changed_and_containers_keep_their_kind() -> None:
    changed = map_floats(NESTED, lambda tensor: tensor + 1)
    assert changed["a"][0].tolist() == [2, 2] and changed["a"][1] is NESTED["a"][1]
    assert isinstance(changed["b"][0], Pair) and changed["b"][0].spikes.tolist() == [1, 1, 1]
    assert changed["b"][0].count == 7 and changed["b"][1:] == (None, "text")
    assert NESTED["a"][0].tolist() == [1, 1]
