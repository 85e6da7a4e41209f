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
from dpap.files import append_text, new_folder, replacing, write_text, write_together

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


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    path, link = tmp_path / "elsewhere/run.json", tmp_path / "link.json"
    write_text(path, "before")
    link.symlink_to(Path("elsewhere/run.json"))
    write_text(link, "after")
    assert link.is_symlink() and path.read_text() == "after"
    assert list(path.parent.iterdir()) == [path]


def test_files_that_belong_together_are_written_all_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / name for name in "abc"]
    write_together(dict.fromkeys(paths, b"before"))
    written: list[int] = []
    real = os.fsync

    def third_is_full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", third_is_full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_together(dict.fromkeys(paths, b"after"))
    assert caught.value.filename == str(paths[2])
    assert sorted(tmp_path.iterdir()) == paths
    assert {path.read_bytes() for path in paths} == {b"before"}


def test_the_folder_that_a_process_runs_in_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (".", f"../{tmp_path.name}"):
        with (
            pytest.raises(FileExistsError, match=r"is the folder that this runs in.*name another"),
            new_folder(Path(name)),
        ):
            pass
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    (tmp_path / "other").mkdir()
    with new_folder(Path("../other/deep/..")) as made:
        write_text(made / "file", "x")
    assert [each.name for each in (tmp_path / "other").iterdir()] == ["file"]


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
    assert caught.value.filename == str(path) and "None" not in str(caught.value)
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
