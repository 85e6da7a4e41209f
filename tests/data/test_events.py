import os
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from dpap.data.events import Events, bin_events, cache_folder, cached_frames, fingerprint


def as_arrays(events):
    x, y, polarity, time = np.array(events, np.int64).reshape(-1, 4).T
    return Events(x, y, polarity, time)


@given(
    st.integers(1, 7),
    st.sampled_from([1, 2, 4]),
    st.integers(0, 50),
    st.integers(0, 120),
    st.integers(1, 90),
    st.integers(0, 99),
)
def test_binning_is_the_rule_event_by_event(timesteps, factor, begin, count, duration, seed):
    rng = np.random.default_rng(seed)
    events = [
        (*map(int, rng.integers(0, [8, 8, 2])), begin + int(rng.integers(duration))) for _ in range(count)
    ]
    frames = np.zeros((timesteps, 2, 8 // factor, 8 // factor), np.int64)
    edges = [begin + duration * step / timesteps for step in range(1, timesteps)]
    for x, y, polarity, time in events:
        window = sum(time >= edge for edge in edges)
        frames[window, polarity, y // factor, x // factor] += 1
    got = bin_events(as_arrays(events), timesteps, 8, 8, begin, begin + duration, factor)
    assert got.dtype == np.uint8 and np.array_equal(got, frames)


def test_counts_stop_at_255():
    events = as_arrays([(1, 2, 1, 0)] * 300 + [(1, 2, 0, 0)] * 255)
    frames = bin_events(events, 1, 4, 4, 0, 1)
    assert frames[0, :, 2, 1].tolist() == [255, 255] and frames.sum() == 510


def test_downsample_must_divide():
    with pytest.raises(ValueError, match="downsample must divide the sensor's sides 34x34; got 4"):
        bin_events(as_arrays([(0, 0, 0, 0)]), 1, 34, 34, 0, 1, 4)


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(None) == tmp_path / "dpap"
    assert cache_folder("here") == Path("here")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder(None) == Path.home() / ".cache" / "dpap"


def test_fingerprint_changes_with_settings_names_sizes_and_dates(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"12345")
    keys = {fingerprint([file], tmp_path, timesteps=4), fingerprint([file], tmp_path, timesteps=5)}
    file.write_bytes(b"123456")
    keys.add(fingerprint([file], tmp_path, timesteps=4))
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    keys.add(fingerprint([file], tmp_path, timesteps=4))
    keys.add(fingerprint([file.rename(tmp_path / "b.bin")], tmp_path, timesteps=4))
    assert len(keys) == 5


class Builder:
    """Yields known frames and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.frames = np.random.default_rng(0).integers(0, 9, (3, 2, 2, 4, 4), dtype=np.uint8)

    def __call__(self):
        self.calls += 1
        yield from self.frames


def test_frames_are_built_once(tmp_path):
    builder = Builder()
    for _ in range(2):
        got = cached_frames(tmp_path / "deep" / "cache", "key", builder.frames.shape, builder)
        assert torch.equal(got, torch.from_numpy(builder.frames))
    assert builder.calls == 1
    assert sorted(path.name for path in (tmp_path / "deep" / "cache").iterdir()) == [
        ".lock",
        "key.crc32",
        "key.npy",
    ]


def flip_a_byte(path):
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "key.npy").write_bytes((folder / "key.npy").read_bytes()[:-1]),
        lambda folder: (folder / "key.npy").write_bytes(b"nothing of the kind"),
        lambda folder: (folder / "key.npy").write_bytes(b""),
        lambda folder: flip_a_byte(folder / "key.npy"),
        lambda folder: (folder / "key.crc32").unlink(),
        lambda folder: np.save(folder / "key.npy", np.zeros((1, 2), np.uint8)),
        lambda folder: np.save(folder / "key.npy", np.array([{"an": "object"}]), allow_pickle=True),
    ],
)
def test_damaged_frames_are_rebuilt(tmp_path, damage):
    builder = Builder()
    cached_frames(tmp_path, "key", builder.frames.shape, builder)
    damage(tmp_path)
    got = cached_frames(tmp_path, "key", builder.frames.shape, builder)
    assert builder.calls == 2 and torch.equal(got, torch.from_numpy(builder.frames))


def test_an_interrupted_build_leaves_nothing(tmp_path):
    def build():
        yield np.zeros((2, 2, 4, 4), np.uint8)
        raise ValueError("recording 2 is damaged")

    with pytest.raises(ValueError, match="recording 2"):
        cached_frames(tmp_path, "key", (3, 2, 2, 4, 4), build)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"set data\.cache to another folder"):
        cached_frames(tmp_path / "file", "key", (3, 2, 2, 4, 4), Builder())


def _killed_while_it_builds(folder: Path) -> None:
    def build():
        yield np.zeros((2, 2, 4, 4), np.uint8)
        os.kill(os.getpid(), signal.SIGKILL)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, which this child has no use for
        child = os.fork()
    if child == 0:
        cached_frames(folder, "other", (3, 2, 2, 4, 4), build)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not copied here")
@pytest.mark.parametrize("known", [True, False])
def test_what_a_killed_process_left_is_removed(tmp_path, known):
    builder = Builder()
    if known:
        cached_frames(tmp_path, "key", builder.frames.shape, builder)
    _killed_while_it_builds(tmp_path)
    _killed_while_it_builds(tmp_path)
    assert [path.name for path in tmp_path.glob(".b*")] == [".building.npy"]
    got = cached_frames(tmp_path, "key", builder.frames.shape, builder)
    assert builder.calls == 1 and torch.equal(got, torch.from_numpy(builder.frames))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "key.crc32", "key.npy"]


def test_what_is_being_built_stays(tmp_path):
    builder = Builder()
    cached_frames(tmp_path, "key", builder.frames.shape, builder)
    with FileLock(tmp_path / ".lock"):
        (tmp_path / ".building.npy").touch()
        cached_frames(tmp_path, "key", builder.frames.shape, builder)
        assert (tmp_path / ".building.npy").exists()


@pytest.mark.parametrize("samples", [2, 4])
def test_as_many_samples_as_were_listed(tmp_path, samples):
    builder = Builder()
    with pytest.raises(ValueError, match=f"must hold {samples} samples, as when they were listed; got 3"):
        cached_frames(tmp_path, "key", (samples, *builder.frames.shape[1:]), builder)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, content):
            if memoryview(content).ndim > 1:
                raise OSError(28, "No space left on device")
            return self.file.write(content)

    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *mode: Full(opened(path, *mode)))
    with pytest.raises(
        OSError, match=r"cannot be kept in .*No space left.*; set data\.cache to another folder"
    ):
        cached_frames(tmp_path, "key", Builder().frames.shape, Builder())
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
