import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

import dpap
from dpap.experiment.checkpoint import copy_checkpoint, write_checkpoint
from dpap.experiment.sealed import append, write_json
from dpap.files import append_text, replacing, write_text

WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: write_text(path, "x"),
    "line": lambda path: append(path, {}),
    "record": lambda path: write_json(path, {}),
    "checkpoint": lambda path: write_checkpoint(path, {"epoch": 1}),
    "copy": lambda path: copy_checkpoint(Path(__file__), path),
    "model": lambda path: dpap.save(nn.Linear(2, 2), path),
}


def test_a_failed_write_leaves_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_text(path, "before")
    with pytest.raises(ValueError, match="half"), replacing(path) as file:
        file.write(b"half")
        raise ValueError("half")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_before_can_be_kept(tmp_path: Path) -> None:
    path, before = tmp_path / "now", tmp_path / "before"
    for number in range(3):
        with replacing(path, keep=before) as file:
            file.write(b"%d" % number)
    assert (path.read_text(), before.read_text()) == ("2", "1")


@pytest.mark.parametrize("name", WRITERS)
def test_files_have_the_mode_that_the_user_chose(name: str, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        WRITERS[name](tmp_path / name)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()] == [0o640]


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_an_error_that_names_the_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / name
    WRITERS[name](path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        WRITERS[name](path)
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes().startswith(before)


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "model"])
def test_a_vanished_folder_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        WRITERS[name](tmp_path / "gone" / name)
    assert caught.value.filename == str(tmp_path / "gone" / name)


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_lies_on_the_disk(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_mode)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    WRITERS[name](tmp_path / name)
    assert [stat.S_ISDIR(mode) for mode in synced] == [False, True]


def test_a_device_without_room_is_named() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("the system has no /dev/full")
    with pytest.raises(OSError, match="/dev/full"):
        append_text(full, "x")
