import torch
from hypothesis import given
from hypothesis import strategies as st

from dpap.data.partition import fold, share, stratified_order

labels = st.lists(st.integers(0, 4), min_size=1, max_size=80).map(torch.tensor)
seeds = st.integers(0, 2**31)


@given(labels, seeds)
def test_order_is_a_permutation_that_the_seed_decides(labels, seed):
    order = stratified_order(labels, seed)
    assert order.sort().values.tolist() == list(range(len(labels)))
    assert torch.equal(order, stratified_order(labels, seed))


@given(labels, seeds, st.data())
def test_share_holds_the_classes_in_proportion(labels, seed, data):
    count = data.draw(st.integers(0, len(labels)))
    chosen, rest = share(labels, count, seed)
    assert len(chosen) == count
    assert sorted([*chosen.tolist(), *rest.tolist()]) == list(range(len(labels)))
    classes = len(labels.unique())
    for label in labels.unique():
        proportion = float((labels == label).float().mean())
        assert abs(int((labels[chosen] == label).sum()) - proportion * count) <= 1 + proportion * classes / 2


@given(labels, seeds, st.data())
def test_folds_are_disjoint_and_cover(labels, seed, data):
    folds = data.draw(st.integers(1, len(labels)))
    parts = [fold(labels, folds, number, seed) for number in range(folds)]
    assert torch.cat([inside for inside, _ in parts]).sort().values.tolist() == list(range(len(labels)))
    sizes = [len(inside) for inside, _ in parts]
    assert max(sizes) - min(sizes) <= 1
    for inside, outside in parts:
        assert sorted([*inside.tolist(), *outside.tolist()]) == list(range(len(labels)))


def test_folds_hold_all_classes_alike():
    labels = torch.arange(10).repeat(20)
    for number in range(5):
        inside, _ = fold(labels, 5, number, seed=3)
        assert torch.bincount(labels[inside]).tolist() == [4] * 10


def test_seeds_differ_and_limits_nest():
    labels = torch.arange(10).repeat(20)
    small, _ = share(labels, 30, 0)
    large, _ = share(labels, 90, 0)
    assert set(small.tolist()) < set(large.tolist())
    assert not torch.equal(small, share(labels, 30, 1)[0])
