import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpap.data.split import TensorSplit
from dpap.data.transform import Augmentation, ImageConverter


def make_split(samples: int, augmentation: Augmentation | None = None) -> TensorSplit:
    """Image n is filled with n, its label is n too."""
    images = torch.arange(samples, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 3, 3).contiguous()
    return TensorSplit.of(images, torch.arange(samples), ImageConverter(full=1, augmentation=augmentation))


sizes = st.integers(0, 30)


@given(sizes, st.integers(1, 12), st.one_of(st.none(), st.integers(0, 2**40)), st.booleans())
def test_batches_cover_each_sample_once(samples, batch_size, seed, drop_last):
    split = make_split(samples)
    batches = list(split.batches(batch_size, seed, drop_last))
    assert len(batches) == split.number_of_batches(batch_size, drop_last)
    labels = [int(label) for _, y in batches for label in y]
    kept = samples // batch_size * batch_size if drop_last else samples
    assert len(labels) == len(set(labels)) == kept
    assert all(len(y) == batch_size for _, y in (batches if drop_last else batches[:-1]))
    for x, y in batches:
        assert torch.equal(x[:, 0, 1, 1], y.float())
    if seed is None:
        assert labels == list(range(kept))


def test_the_seed_alone_decides():
    split = make_split(40, Augmentation(1, True))
    first = list(split.batches(8, 5))
    torch.manual_seed(99)
    torch.rand(3)
    next(split.batches(8, 6))
    again = list(split.batches(8, 5))
    assert all(
        torch.equal(a, b) for pair in zip(first, again, strict=True) for a, b in zip(*pair, strict=True)
    )
    assert not torch.equal(first[0][1], next(split.batches(8, 6))[1])


def test_batches_leave_the_global_random_numbers_alone():
    state = torch.get_rng_state()
    list(make_split(20, Augmentation(1, True)).batches(8, 5))
    assert torch.equal(torch.get_rng_state(), state)


def test_subset_and_join():
    split = make_split(10)
    odd = split.subset(torch.tensor([1, 3, 5, 7, 9]))
    assert odd.subset(torch.tensor([0, 4])).labels.tolist() == [1, 9]
    joined = odd.join(make_split(2))
    assert joined.labels.tolist() == [1, 3, 5, 7, 9, 0, 1]
    x, y = next(joined.batches(7))
    assert torch.equal(x[:, 0, 0, 0], y.float())


def test_plain_is_not_augmented():
    split = make_split(10, Augmentation(1, False))
    assert any((x == 0).any() for x, _ in split.subset(torch.arange(1, 10)).batches(9, 0))
    assert all((x > 0).all() for x, _ in split.plain().subset(torch.arange(1, 10)).batches(9, 0))


@pytest.mark.parametrize("call", ["batches", "number_of_batches"])
def test_batch_size_is_checked_at_once(call):
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        getattr(make_split(3), call)(0)


def test_batches_are_made_where_the_samples_lie():
    """On a device that computes shapes alone: whatever mixed it with the CPU would raise."""
    convert = ImageConverter(augmentation=Augmentation(1, True), statistics=((0.5,), (0.2,)))
    here = TensorSplit.of(torch.zeros(10, 1, 3, 3, dtype=torch.uint8), torch.arange(10), convert)
    there = here.subset(torch.arange(1, 10)).to(torch.device("meta"), {})
    shapes = [(x.shape, y.shape) for x, y in here.subset(torch.arange(1, 10)).batches(4, 0, part=(1, 2))]
    batches = list(there.batches(4, 0, part=(1, 2)))
    assert [(x.shape, y.shape) for x, y in batches] == shapes
    assert {one.device.type for batch in batches for one in batch} == {"meta"}


def test_what_splits_share_is_moved_once():
    split = make_split(10)
    moved: dict[int, torch.Tensor] = {}
    one, other = (
        split.subset(torch.arange(part, 10, 2)).to(torch.device("meta"), moved) for part in range(2)
    )
    assert one.data is other.data and len(moved) == 2
