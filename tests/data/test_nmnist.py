import tracemalloc

import numpy as np
import pytest
import torch

from dpap.data import DataConfig, load_data
from dpap.data.events import bin_events
from dpap.data.nmnist import read_recording
from dpap.data.registry import DATASETS


@pytest.fixture
def load(nmnist_root):
    def load(**options):
        return load_data(
            DataConfig(name="nmnist", root=str(nmnist_root), cache=str(nmnist_root / "cache"), **options)
        )

    return load


def slow_events(raw):
    """Decoded in another way, by bit strings."""
    events = []
    for start in range(0, len(raw), 5):
        bits = "".join(f"{byte:08b}" for byte in raw[start : start + 5])
        events.append((int(bits[:8], 2), int(bits[8:16], 2), int(bits[16]), int(bits[17:], 2)))
    return events


def test_frames_equal_a_slow_decoder(load, nmnist_root, formats):
    bundle = load(timesteps=6)
    assert (bundle.input_shape, bundle.events, bundle.timesteps) == ((2, 34, 34), True, 6)
    x, y = next(bundle.train.batches(6))
    assert x.shape == (6, 6, 2, 34, 34) and y.tolist() == [0, 0, 0, 7, 7, 7]
    for n, path in enumerate(sorted((nmnist_root / "NMNIST" / "Train").rglob("*.bin"))):
        events = slow_events(path.read_bytes())
        begin, end = events[0][3], events[-1][3] + 1
        expected = torch.from_numpy(formats.slow_frames(events, 6, 34, begin, end))
        assert torch.equal(x[:, n].long(), expected) and int(expected.sum()) == 200


def test_binary_and_downsampled(load):
    counts, _ = next(load(timesteps=2, downsample=17).test.batches(4))
    binary, _ = next(load(timesteps=2, downsample=17, frames="binary").test.batches(4))
    whole, _ = next(load(timesteps=2).test.batches(4))
    assert counts.max() > 1 and torch.equal(binary, (counts > 0).float())
    assert torch.equal(counts, whole.unfold(3, 17, 17).unfold(4, 17, 17).sum((-1, -2)))


def test_clock_overflow_adds_8192_microseconds(load, nmnist_root, formats):
    path = nmnist_root / "NMNIST" / "Test" / "0" / "00000.bin"
    path.write_bytes(formats.nmnist_bytes([(1, 2, 0, 0), (0, 240, 0, 8191), (3, 4, 1, 8191)]))
    x, _ = next(load(timesteps=2).test.batches(1))
    assert x.nonzero().tolist() == [[0, 0, 0, 2, 1], [1, 0, 1, 4, 3]]


def test_changed_recordings_are_read_anew(load, nmnist_root, formats):
    before, _ = next(load().test.batches(1))
    (nmnist_root / "NMNIST" / "Test" / "0" / "00000.bin").write_bytes(formats.nmnist_bytes([(1, 1, 1, 5)]))
    after, _ = next(load().test.batches(1))
    assert before.sum() == 200 and after.sum() == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(9), "whole events of 5 bytes; got 9 bytes"),
        (b"", "got 0 bytes"),
        (bytes([34, 0, 0, 0, 0]), "x and y below 34; got x up to 34 and y up to 0"),
        (bytes([0, 240, 0, 0, 0]), "at least one event"),
    ],
)
def test_damage_is_named(load, nmnist_root, content, message):
    path = nmnist_root / "NMNIST" / "Train" / "7" / "00001.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load()
    assert str(path) in str(caught.value) and "garrickorchard" in str(caught.value)


def test_wrong_folders_are_named(load, nmnist_root):
    folder = nmnist_root / "NMNIST" / "Test"
    (folder / "10").mkdir()
    with pytest.raises(ValueError, match="one folder per digit, 0 to 9; got '10'"):
        load()
    (folder / "10").rmdir()
    folder.rename(folder.with_name("Other"))
    with pytest.raises(FileNotFoundError, match="Test is missing"):
        load()
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match="no recording in"):
        load()


def test_what_systems_leave_is_passed_over(load, nmnist_root):
    expected, labels = next(load().train.batches(6))
    train = nmnist_root / "NMNIST" / "Train"
    for folder in (".ipynb_checkpoints", "__MACOSX", "7/.ipynb_checkpoints"):
        (train / folder).mkdir()
    for file in (
        ".DS_Store",
        "Thumbs.db",
        "._7",
        "7/._00001.bin",
        "7/.DS_Store",
        "7/Thumbs.db",
        "__MACOSX/1.bin",
    ):
        (train / file).write_bytes(b"no events")
    found, again = next(load().train.batches(6))
    assert torch.equal(found, expected) and torch.equal(again, labels)


def test_a_recording_takes_less_than_ten_times_its_size(tmp_path):
    path = tmp_path / "large.bin"
    events = np.random.default_rng(0).integers(0, 34, (400_000, 5), dtype=np.uint8)
    events[::1000, 1] = 240
    path.write_bytes(events.tobytes())
    tracemalloc.start()
    try:
        read = read_recording(path, DATASETS["nmnist"])
        bin_events(read, 8, 34, 34, int(read.time.min()), int(read.time.max()) + 1)
        assert tracemalloc.get_traced_memory()[1] < 10 * path.stat().st_size
    finally:
        tracemalloc.stop()
