"""Sums over what units feed, against a plain loop."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from dpap.anatomy.observing.gather import FeatureSums


@given(st.lists(st.integers(-2, 5), min_size=1, max_size=20), st.integers(0, 9))
def test_each_unit_gets_the_sum_over_its_features(fed: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(100, (3, len(fed)), generator=generator).double()
    expected = torch.zeros(3, 6).double()
    for feature, unit in enumerate(fed):
        if unit >= 0:
            expected[:, unit] += values[:, feature]
    assert torch.equal(FeatureSums(torch.tensor(fed), 6)(values), expected)


def test_one_feature_each_is_passed_on_as_it_is() -> None:
    values = torch.rand(2, 4)
    assert FeatureSums(torch.arange(4), 4)(values) is values


def test_small_floats_are_summed_in_single_precision() -> None:
    values = torch.full((300,), 1.0, dtype=torch.bfloat16)
    total = FeatureSums(torch.zeros(300, dtype=torch.int64), 1)(values)
    assert total.dtype == torch.float32 and total.item() == 300
