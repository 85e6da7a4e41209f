import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpap.data.transform import Augmentation, EventConverter, ImageConverter


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(0, 3), st.booleans(), st.integers(0, 2**31), st.sampled_from([(5, 6), (7, 4)]))
def test_every_sample_is_one_of_its_shifts(pad, flip, seed, size):
    """Found by trying each shift and mirroring with slices, sample by sample."""
    height, width = size
    batch = torch.randint(1, 256, (4, 2, height, width), generator=seeded(seed)).to(torch.uint8)
    got = Augmentation(pad, flip)(batch, seeded(seed))
    assert got.shape == batch.shape and got.dtype == torch.uint8
    for before, after in zip(batch, got, strict=True):
        padded = torch.zeros(2, height + 2 * pad, width + 2 * pad, dtype=torch.uint8)
        padded[:, pad : pad + height, pad : pad + width] = before
        crops = [
            padded[:, row : row + height, column : column + width]
            for row in range(2 * pad + 1)
            for column in range(2 * pad + 1)
        ]
        if flip:
            crops += [crop.flip(-1) for crop in crops]
        assert any(torch.equal(after, crop) for crop in crops)


def test_all_shifts_and_mirrorings_occur():
    batch = torch.zeros(2000, 1, 5, 5, dtype=torch.uint8)
    batch[:, 0, 2, 2] = 1
    batch[:, 0, 2, 1] = 2
    got = Augmentation(1, True)(batch, seeded(0))
    assert len(got.flatten(1).unique(dim=0)) == 9 * 2


def test_a_recording_moves_as_one():
    one = torch.randint(0, 9, (6, 1, 1, 7, 7), generator=seeded(0)).to(torch.uint8)
    got = Augmentation(2, True)(one.expand(-1, 3, 2, -1, -1).contiguous(), seeded(1))
    assert torch.equal(got, got[:, :1, :1].expand_as(got))
    assert not torch.equal(got[:, :1, :1], one)


def test_image_values():
    batch = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    assert ImageConverter()(batch, None).flatten().tolist() == pytest.approx([0, 0.2, 1])
    statistics = ((0.5, 0.1, 0.0), (0.5, 0.1, 2.0))
    normalised = ImageConverter(statistics=statistics)(batch, None).flatten().tolist()
    assert normalised == pytest.approx([-1, 1, 0.5], abs=1e-6)


def test_events_come_time_first_as_counts_or_presence():
    batch = torch.randint(0, 4, (2, 3, 2, 4, 4), generator=seeded(0)).to(torch.uint8)
    counts = EventConverter()(batch, None)
    assert counts.shape == (3, 2, 2, 4, 4) and counts.is_contiguous() and counts.dtype == torch.float32
    assert torch.equal(counts[1, 0], batch[0, 1].float())
    assert torch.equal(EventConverter(binary=True)(batch, None), (counts > 0).float())


def test_nothing_is_augmented_without_a_generator():
    batch = torch.randint(0, 256, (4, 1, 6, 6), generator=seeded(0)).to(torch.uint8)
    augmentation = Augmentation(2, True)
    plain = ImageConverter()(batch, None)
    assert torch.equal(ImageConverter(augmentation=augmentation)(batch, None), plain)
    assert not torch.equal(ImageConverter(augmentation=augmentation)(batch, seeded(0)), plain)
