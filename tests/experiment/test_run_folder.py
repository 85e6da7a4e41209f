import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from dpap.experiment.errors import UserError
from dpap.experiment.run_folder import (
    RunFolder,
    append,
    drop_lines_after,
    read_json,
    read_lines,
    with_replacement,
    write_json,
)
from dpap.report.style import as_png


def test_lines_survive_a_cut_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for epoch in (1, 2, 3):
        append(path, {"epoch": epoch, "loss": epoch / 3})
    whole = path.read_bytes()
    ends = [place for place, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        complete = sum(end <= cut for end in ends)
        assert [record["epoch"] for record in read_lines(path)] == [1, 2, 3][:complete]


def test_a_broken_line_among_others_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for broken, message in (
        ('{"epoch": 2, "lo', "line 2: expected one JSON object"),
        ("[2]", "line 2: .* got list"),
    ):
        path.write_text(f'{{"epoch": 1}}\n{broken}\n{{"epoch": 3}}\n')
        with pytest.raises(UserError, match=message):
            read_lines(path)


@given(kept=st.integers(0, 5))
def test_lines_past_the_checkpoint_are_dropped(kept: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    for epoch in range(1, 4):
        append(path, {"epoch": epoch, "sparsity": 0.1 * epoch})
    before = path.read_text().splitlines()
    with path.open("a") as file:
        file.write('{"epoch": 4, "spa')
    drop_lines_after(path, kept)
    assert path.read_text().splitlines() == before[:kept]


def test_a_failed_write_leaves_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_json(path, {"a": 1})

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        with_replacement(path, fail)
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        append(tmp_path / "metrics.jsonl", {"epoch": 1, "loss": float("nan")})


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    for content, message in (('{"epochs": ', "expected JSON"), ("[]", "expected a JSON object, got list")):
        path.write_text(content)
        with pytest.raises(UserError, match=rf"summary\.json: {message}"):
            read_json(path)


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
    assert json.loads(folder.facts.read_text()) == {"name": "second"}
    assert not folder.metrics.exists() and not list(folder.path.glob(".check*"))
    assert (folder.path / "notes.txt").read_text() == "mine"
    assert (folder.path / ".download.99.part").read_text() == "mine too"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the run folder"):
        RunFolder(tmp_path / "file" / "run").make()


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
