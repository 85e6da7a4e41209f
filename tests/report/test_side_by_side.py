import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dpap.cli import main
from dpap.experiment.errors import UserError
from dpap.report import write_side_by_side
from dpap.report.records import read_run
from dpap.report.side_by_side import Named, differences

MakeRun = Callable[..., Path]


@pytest.fixture
def three(make_run: MakeRun) -> list[Path]:
    runs = [make_run("dense", dense=True), make_run("pruned"), make_run("other", epochs=7, finished=False)]
    (runs[1] / "config.yaml").write_text("out: here\nseed: 1\nnetwork: {width: 2}\npruning: {target: 0.6}\n")
    (runs[2] / "config.yaml").write_text("out: there\nseed: 1\nnetwork: {width: 2}\npruning: {target: 0.9}\n")
    return runs


def test_the_page_holds_every_run_and_every_figure(three: list[Path], tmp_path: Path) -> None:
    page = write_side_by_side(three, tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    assert sorted(file.name for file in page.parent.iterdir()) == [
        "accuracy.png", "index.html", "size.png", "weights.png",
    ]  # fmt: skip
    for path in three:
        assert f'<th scope="row">{path.name}</th>' in text
    summary = json.loads((three[1] / "summary.json").read_text())
    assert f"{summary['after']['macs']:,.0f}" in text and "7, not finished" in text
    assert "other: The run has no summary.json" in text
    # a line a run, also of the dense one; the run that is not finished has no size yet
    labels = {
        name: text.split(f'aria-label="{name}')[1].split('"')[0] for name in ("Weights alive", "Accuracy aga")
    }
    assert all(path.name in labels["Weights alive"] for path in three)
    assert "dense" in labels["Accuracy aga"] and "other" not in labels["Accuracy aga"]
    assert write_side_by_side(three, page.parent).read_text(encoding="utf-8") == text


def test_only_what_differs_of_the_configurations_is_shown(three: list[Path]) -> None:
    runs = [Named(path.name, read_run(path)) for path in three[1:]]
    assert differences(runs) == [["pruning.target", "0.6", "0.9"]]
    facts = json.loads((three[2] / "run.json").read_text())
    facts["machine"]["cores"] = 64
    (three[2] / "run.json").write_text(json.dumps(facts))
    runs = [Named(path.name, read_run(path)) for path in three]
    assert [line[0] for line in differences(runs)] == [
        "network.layers", "pruning.target", "machine", "seed", "network.width",
    ]  # fmt: skip
    assert differences(runs[:1]) == []


def test_runs_of_one_name_are_told_apart_by_their_folders(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run("a/run", epochs=2), make_run("b/run", epochs=2)]
    text = write_side_by_side(runs, tmp_path / "out").read_text(encoding="utf-8")
    assert "a/run · b/run" in text


def test_what_is_no_run_is_refused(
    three: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="expected different runs"):
        write_side_by_side([three[0], three[0] / ".." / "dense"], out)
    with pytest.raises(FileNotFoundError, match="expected a run folder"):
        write_side_by_side([three[0], tmp_path / "nothing"], out)
    (tmp_path / "results.csv").write_text("")
    with pytest.raises(UserError, match="is a comparison, which has a page of its own"):
        write_side_by_side([three[0], tmp_path], out)
    assert not out.exists()
    out.mkdir()
    (out / "index.html").write_text("mine")
    assert main(["report", *map(str, three[:2]), "--out", str(out)]) == 2
    assert (
        "written by something else" in capsys.readouterr().err and (out / "index.html").read_text() == "mine"
    )


def test_the_command_takes_several_runs(
    three: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *map(str, three[:2]), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "index.html")
    assert main(["report", str(three[0]), "--out", str(tmp_path / "out")]) == 2
    assert "--out is for several runs" in capsys.readouterr().err
