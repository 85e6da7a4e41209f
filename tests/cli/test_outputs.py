"""Where a subcommand is to write: looked at before any work is done for it."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from dpap.cli import main
from dpap.cli.shared import check_output, continued_by, make_room
from dpap.experiment.errors import UserError


def never(*_: Any, **__: Any) -> None:
    raise AssertionError("work was done for an output that cannot be written")


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    for work in (
        "evaluate.evaluate_run", "predict.predict_run", "export.read_kept", "compare.compare", "compare.check_data_of",
        "demo.demo",
    ):  # fmt: skip
        monkeypatch.setattr(f"dpap.cli.{work}", never)
    monkeypatch.setattr("dpap.experiment.train.load_data", never)


HUB = ["--to=hub", "--licence=mit", "--licence-file=file"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate", "run", "--json=file/x.json"], "--json: HERE/file is a file, and cannot hold x.json"),
        (["evaluate", "run", "--json=."], "--json: . is a folder"),
        (["predict", "run", "x.png", "--json=file/a/x.json"], "--json: HERE/file is a file"),
        (["predict", "run", "x.png", "--csv=."], "--csv: . is a folder"),
        (["export", "run", "--to=onnx", "--out=file/a"], "--out: HERE/file is a file"),
        (["export", "run", "--to=plain", "--out=."], "--out: . is a folder"),
        (["export", "run", *HUB, "--out=file"], "file is a file, and a hub export is a folder"),
        (["train", "--out=file"], "file is a file, and a run is a folder: choose another name (--out)"),
        (["compare", "--out=file"], "file is a file, and a comparison is a folder"),
        (["demo", "--out=file"], "file is a file, and a comparison is a folder"),
        (["demo", "--out=file/a"], "--out: HERE/file is a file, and cannot hold a"),
    ],
)
def test_a_path_that_cannot_be_written_is_named_first(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said.replace("HERE", str(Path.cwd())) in error
    assert "go on with" not in error and "--overwrite" not in error
    assert [each.name for each in Path().iterdir()] == ["file"]


def test_folders_that_lack_are_made_once_there_is_something_to_write(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.json"
    check_output("--json", path)
    assert not (tmp_path / "a").exists()
    assert make_room(path) == path and path.parent.is_dir()
    check_output("--json", path)


def test_a_folder_without_the_right_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as one who may do everything
    with pytest.raises(UserError, match=rf"--csv: nothing can be written into {tmp_path}; give this user"):
        check_output("--csv", tmp_path / "a" / "x.csv")


@pytest.mark.parametrize("command", ["evaluate", "predict", "export"])
def test_the_help_says_that_folders_are_made(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "folders that lack are made" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("number", "remedy", "goes_on"),
    [
        (errno.EEXIST, "a file is where a folder should be", False),
        (errno.ENOTDIR, "none of them files", False),
        (errno.ENAMETOOLONG, "a shorter path", False),
        (errno.ENOSPC, "make room", True),
        (errno.EACCES, "give this user the right to", True),
    ],
)
def test_the_same_command_is_advised_only_where_it_can_do_better(
    number: int, remedy: str, goes_on: bool
) -> None:
    with pytest.raises(UserError, match=remedy) as caught, continued_by("dpap demo"):
        raise OSError(number, os.strerror(number), "runs/x")
    assert ("then go on with: dpap demo" in str(caught.value)) is goes_on
