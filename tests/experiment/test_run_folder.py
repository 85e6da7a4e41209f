import re
import shlex
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from dpap.experiment.errors import UserError
from dpap.experiment.run_folder import OF_A_SUMMARY, RunFolder
from dpap.experiment.sealed import read_json, write_json
from dpap.experiment.using.kept import finished
from dpap.report.style import as_png


def test_the_command_that_goes_on_can_be_pasted(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "q run")
    assert shlex.split(folder.resume_command) == ["dpap", "train", "--resume", str(folder.path)]
    folder.make()
    folder.begin("seed: 1\n", {"name": "first"})
    with pytest.raises(UserError, match=re.escape(f"--resume '{folder.path}'")):
        folder.check_free(False)
    with pytest.raises(UserError, match=re.escape(f"dpap train --resume '{folder.path}'")):
        finished(folder.path)


def test_a_folder_is_used_once_and_clearing_spares_other_files(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.check_free(False)
    folder.make()
    folder.begin("seed: 1\n", {"name": "first"})
    (folder.path / "notes.txt").write_text("mine")
    folder.metrics.write_text("{}\n")
    (folder.path / ".checkpoint.pt.99.part").write_text("of a killed process")
    (folder.path / ".download.99.part").write_text("mine too")
    with pytest.raises(UserError, match=r"already holds a run.*--resume.*--overwrite"):
        folder.check_free(False)
    folder.check_free(True)
    folder.begin("seed: 2\n", {"name": "second"})
    assert read_json(folder.facts) == {"name": "second"}
    assert not folder.metrics.exists() and not list(folder.path.glob(".check*"))
    assert (folder.path / "notes.txt").read_text() == "mine"
    assert (folder.path / ".download.99.part").read_text() == "mine too"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the run folder"):
        RunFolder(tmp_path / "file" / "run").make()


def test_a_file_in_the_place_of_the_folder_is_named_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file is a file, and a run is a folder.*\(--out\)"):
        RunFolder(tmp_path / "file").check_free(overwrite=True)


def test_a_summary_has_what_every_summary_has(tmp_path: Path) -> None:
    folder, whole = RunFolder(tmp_path), dict.fromkeys(OF_A_SUMMARY, 1)
    write_json(folder.summary, whole)
    assert folder.read_summary() == whole
    for lacking in OF_A_SUMMARY:
        write_json(folder.summary, {key: 1 for key in OF_A_SUMMARY if key != lacking})
        with pytest.raises(UserError, match=rf"summary.json: expected .* without {lacking}\."):
            folder.read_summary()


def test_what_others_put_beside_a_run_stays(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.begin("seed: 1\n", {})
    report = tmp_path / "report"
    report.mkdir()
    ours, theirs = report / "accuracy.png", report / "holiday.png"
    ours.write_bytes(as_png(Figure()))
    theirs.write_bytes(b"\x89PNG of somebody else")
    (report / "index.html").write_text("<h1>mine</h1>")
    folder.begin("seed: 2\n", {})
    assert not ours.exists()
    assert theirs.exists() and (report / "index.html").read_text() == "<h1>mine</h1>"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors", "metrics.jsonl"])
def test_files_that_no_run_wrote_are_not_replaced(name: str, overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_text("of another program")
    with pytest.raises(UserError, match=rf"no run folder.* holds {name}.*--out"):
        RunFolder(tmp_path).check_free(overwrite)


def test_a_run_that_was_stopped_while_it_began_can_be_begun_again(tmp_path: Path) -> None:
    RunFolder(tmp_path).facts.write_text("{}")
    RunFolder(tmp_path).check_free(False)
