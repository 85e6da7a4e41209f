import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dpap.experiment.errors import UserError
from dpap.report.records import read_run

MakeRun = Callable[..., Path]


def test_numbers_are_those_of_the_files(twins: Path) -> None:
    run = read_run(twins)
    lines = [json.loads(line) for line in (twins / "metrics.jsonl").read_text().splitlines()]
    assert [e.test_accuracy for e in run.epochs] == [line["test_accuracy"] for line in lines]
    assert [layer.alive for layer in run.epochs[7].layers] == [layer["alive"] for layer in lines[7]["layers"]]
    survival = [json.loads(line)["layers"] for line in (twins / "survival.jsonl").read_text().splitlines()]
    assert [record.layers for record in run.survival] == survival
    summary = json.loads((twins / "summary.json").read_text())
    assert run.summary is not None and run.summary.after is not None
    assert run.summary.after.macs == summary["after"]["macs"]
    assert run.twin is not None and run.twin.name == "mnist-dense" and not run.twin.prunes
    assert run.prunes and run.missing == ()


def test_the_reported_epoch_is_the_one_that_the_summary_names(make_run: MakeRun) -> None:
    path = make_run()
    assert read_run(path).reported == read_run(path).epochs[-1]
    summary = json.loads((path / "summary.json").read_text())
    (path / "summary.json").write_text(json.dumps(summary | {"final_epoch": 12}))
    reported = read_run(path).reported
    assert reported is not None and reported.epoch == 12


@pytest.mark.parametrize("name", ["metrics.jsonl", "survival.jsonl"])
def test_a_cut_off_last_line_is_left_out(make_run: MakeRun, name: str) -> None:
    path = make_run()
    content = (path / name).read_bytes()
    (path / name).write_bytes(content[:-30])
    run = read_run(path)
    assert len(run.epochs if name == "metrics.jsonl" else run.survival) == 19
    assert f"The last line of {name} is cut off and left out." in run.missing


def test_a_broken_line_in_the_middle_is_an_error(make_run: MakeRun) -> None:
    path = make_run()
    lines = (path / "metrics.jsonl").read_text().splitlines()
    lines[3] = lines[3][:40]
    (path / "metrics.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 4: expected one JSON object"):
        read_run(path)


def test_an_epoch_that_was_written_twice_counts_once(make_run: MakeRun) -> None:
    path = make_run()
    lines = (path / "metrics.jsonl").read_text().splitlines()
    again = json.loads(lines[4]) | {"test_accuracy": 0.5}
    (path / "metrics.jsonl").write_text("\n".join([*lines, json.dumps(again)]) + "\n")
    run = read_run(path)
    assert [e.epoch for e in run.epochs] == list(range(1, 21))
    assert run.epochs[4].test_accuracy == 0.5


def test_what_a_run_lacks_is_named(make_run: MakeRun) -> None:
    path = make_run(finished=False)
    (path / "survival.jsonl").unlink()
    (path / "config.yaml").unlink()
    (path / "twin").write_text("../gone")
    missing = " ".join(read_run(path).missing)
    for word in ("summary.json", "survival.jsonl", "config.yaml", "../gone"):
        assert word in missing


def test_a_dense_run_lacks_no_survival(make_run: MakeRun) -> None:
    assert read_run(make_run(dense=True)).missing == ()


def test_a_wrong_type_names_file_and_field(make_run: MakeRun) -> None:
    path = make_run()
    (path / "run.json").write_text(json.dumps({"name": "x", "seed": "zero"}))
    with pytest.raises(UserError, match=r"run\.json: expected a whole number as “seed”, got 'zero'"):
        read_run(path)
    (path / "run.json").write_text("[]")
    with pytest.raises(UserError, match=r"run\.json: expected a JSON object, got list"):
        read_run(path)
    (path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json: expected JSON"):
        read_run(path)


def test_a_summary_of_nothing_is_named(make_run: MakeRun) -> None:
    path = make_run()
    (path / "summary.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"summary\.json: expected the summary of a run, got one without epochs"
    ):
        read_run(path)


def test_a_folder_that_is_no_run(tmp_path: Path, make_run: MakeRun) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileNotFoundError, match=r"expected a run folder .* found an empty folder.*dpap demo"):
        read_run(empty)
    with pytest.raises(FileNotFoundError, match="it does not exist"):
        read_run(tmp_path / "nowhere")
    (empty / "notes.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=r"a folder with notes\.txt"):
        read_run(empty)
    with pytest.raises(FileNotFoundError, match="found a file"):
        read_run(empty / "notes.txt")
    make_run("one")
    with pytest.raises(FileNotFoundError, match=r"found a folder of runs.*one"):
        read_run(tmp_path)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 10**400, -(10**16)])
def test_numbers_that_no_run_has_are_refused(make_run: MakeRun, value: float) -> None:
    path = make_run()
    for name, change in (
        ("metrics.jsonl", {"seconds": value}),
        ("metrics.jsonl", {"epoch": value if isinstance(value, int) else 10**16}),
        ("metrics.jsonl", {"epsilon": {"conv": value}}),
        ("survival.jsonl", {"layers": {"fc1": [value]}}),
    ):
        file = path / name
        before = file.read_text()
        first, rest = before.split("\n", 1)
        changed = {key: each for key, each in (json.loads(first) | change).items() if key != "sha256"}
        file.write_text(f"{json.dumps(changed)}\n{rest}")
        with pytest.raises(UserError, match=rf"{name}, line 1.*: expected a number of at most 1e\+15, got"):
            read_run(path)
        file.write_text(before)


def test_what_does_not_fit_the_rest_of_a_run_is_named(twins: Path, make_run: MakeRun) -> None:
    lines = (twins / "metrics.jsonl").read_text().splitlines(keepends=True)
    (twins / "metrics.jsonl").write_text("".join(lines[:-2]))
    survival = (twins / "survival.jsonl").read_text().splitlines(keepends=True)
    (twins / "survival.jsonl").write_text("".join(survival[:-3]))
    facts = json.loads((twins / "run.json").read_text())
    (twins / "run.json").write_text(json.dumps(facts | {"config": "seed: 1\n"}))
    missing = read_run(twins).missing
    assert "metrics.jsonl holds 18 of the 20 epochs of the run." in missing
    assert "survival.jsonl lacks 1 epochs that metrics.jsonl holds." in missing
    assert "config.yaml is not what the run began with: it was changed or damaged." in missing


@pytest.mark.parametrize("named", ["", "..", ".", "../other-seed", "\0", "x" * 5000])
def test_a_twin_that_is_none_is_named(named: str, twins: Path, make_run: MakeRun) -> None:
    other = make_run(name="other-seed", dense=True)
    facts = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps(facts | {"seed": 1}))
    (twins / "twin").write_text(named)
    run = read_run(twins)
    assert run.twin is None
    assert any(f"“{named}”" in note for note in run.missing)


def test_a_config_that_is_no_text_is_named(make_run: MakeRun) -> None:
    path = make_run()
    (path / "config.yaml").write_bytes(b"seed: \xff")
    with pytest.raises(UserError, match=r"config\.yaml: expected text in UTF-8"):
        read_run(path)
