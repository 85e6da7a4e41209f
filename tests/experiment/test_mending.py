from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dpap.experiment.checkpoint import read_checkpoint, write_checkpoint
from dpap.experiment.errors import UserError
from dpap.experiment.mending import check_configuration, lines_of, mend_lines, what_is_damaged
from dpap.experiment.run_folder import RunFolder
from dpap.experiment.sealed import Record, append, line_of, write_json
from dpap.experiment.train import resume, train
from support.runs import StopAt, same_bits

EPOCHS = 3
Change = Callable[[bytes], bytes]


def metrics(epoch: int) -> Record:
    return {
        "epoch": epoch, "test_accuracy": 0.1 * epoch, "sparsity": 0.0, "timestep_sparsity": 0.0,
        "target_of": None, "achieved": None, "seconds": 1 / epoch,
    }  # fmt: skip


def survival(epoch: int) -> Record:
    return {"epoch": epoch, "layers": {"fc1": [1 / 3, None, 0.1 * epoch]}}


@pytest.fixture
def run(tmp_path: Path) -> tuple[RunFolder, Record]:
    """A run folder after three epochs, and its checkpoint's state."""
    folder = RunFolder(tmp_path)
    for epoch in range(1, EPOCHS + 1):
        append(folder.survival, survival(epoch))
        append(folder.metrics, metrics(epoch))
    records = [metrics(epoch) for epoch in range(1, EPOCHS + 1)]
    return folder, {"epoch": EPOCHS, **lines_of(records, survival(EPOCHS))}


def test_lines_past_the_checkpoint_are_dropped_without_a_word(run: tuple[RunFolder, Record]) -> None:
    folder, state = run
    before = folder.metrics.read_bytes(), folder.survival.read_bytes()
    append(folder.survival, survival(EPOCHS + 1))
    append(folder.metrics, metrics(EPOCHS + 1))
    with folder.metrics.open("a") as file:
        file.write('{"epoch": 5, "te')
    said: list[str] = []
    assert mend_lines(folder, state, said.append) == [metrics(epoch) for epoch in (1, 2, 3)]
    assert (folder.metrics.read_bytes(), folder.survival.read_bytes()) == before
    assert not said
    assert mend_lines(folder, None, said.append) == []
    assert folder.metrics.read_bytes() == folder.survival.read_bytes() == b"" and not said


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[: content.rstrip().rfind(b"\n") + 1],
        lambda content: content[: content.rstrip().rfind(b"\n") + 9],
        lambda content: content.replace(b"0.1", b"0.9", 1),
        lambda content: content[:40] + bytes(50) + content[90:],
        lambda content: b"\xff" + content,
    ],
    ids=["empty", "no end", "a line short", "a line cut", "a digit", "zeros", "no text"],
)
def test_metrics_are_written_anew_from_the_checkpoint(change: Change, run: tuple[RunFolder, Record]) -> None:
    folder, state = run
    before = folder.metrics.read_bytes()
    folder.metrics.write_bytes(change(before))
    said: list[str] = []
    mend_lines(folder, state, said.append)
    assert folder.metrics.read_bytes() == before
    assert len(said) == 1 and str(folder.metrics) in said[0]


def test_the_last_line_of_survival_is_put_back_and_others_are_named(run: tuple[RunFolder, Record]) -> None:
    folder, state = run
    before = folder.survival.read_bytes()
    lines = before.splitlines(keepends=True)
    said: list[str] = []
    folder.survival.write_bytes(b"".join(lines[:-1]))
    mend_lines(folder, state, said.append)
    assert folder.survival.read_bytes() == before and not said
    folder.survival.write_bytes(lines[0] + lines[1].replace(b"null", b"0.25") + lines[2])
    mend_lines(folder, state, said.append)
    assert folder.survival.read_bytes() == lines[0] + lines[2]
    assert "line 2" in said[0] and str(folder.survival) in said[0] and "lacks 1 of 3 epochs" in said[1]
    folder.survival.unlink()
    mend_lines(folder, state, said.append)
    assert folder.survival.read_bytes() == lines[2] and "lacks 2 of 3 epochs" in said[2]


def test_lines_that_do_not_fit_an_older_checkpoint_are_an_error(run: tuple[RunFolder, Record]) -> None:
    folder, _ = run
    old = {"epoch": EPOCHS}
    assert len(mend_lines(folder, old, print)) == EPOCHS
    for lines in ([metrics(1), metrics(2)], [metrics(1), {"epoch": 2}, metrics(3)]):
        folder.metrics.write_text("".join(map(line_of, lines)))
        with pytest.raises(UserError, match=r"metrics\.jsonl holds 2 of the 3 epochs.*--overwrite"):
            mend_lines(folder, old, print)


def small(tiny: Any, **fields: Any) -> Any:
    network = {"layers": "12FC-10FC", "neuron": "relu"}
    return tiny(
        network=network, training={"epochs": 3}, data={"validation": 0.2}, protocol="validation", **fields
    )


def test_a_run_goes_on_to_the_same_bits_whatever_of_it_is_damaged(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = small(tiny, out=str(tmp_path / "whole"))
    train(whole)
    config = small(tiny)
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=StopAt(epoch=3, batch=1))
    folder, progress = RunFolder(config.folder), StopAt(epoch=0, batch=0)
    said: list[str] = []
    progress.message = said.append  # type: ignore[method-assign]
    content = bytearray(folder.checkpoint.read_bytes())
    content[len(content) // 3] ^= 4
    folder.checkpoint.write_bytes(content)
    (folder.path / ".checkpoint.pt.99-ab.part").write_bytes(b"of a process that was killed")
    resume(folder.path, progress=progress)
    same_bits(folder.path, whole.folder)
    assert any("checkpoint.pt is not a readable checkpoint" in line for line in said)
    assert not list(folder.path.glob("*.part")) and not list(folder.path.glob(".*.part"))

    # a finished run is left alone until one of its files is damaged, and finished again then
    assert what_is_damaged(folder) is None
    model = folder.model.read_bytes()
    for path, change in (
        (folder.summary, lambda content: content.replace(b"0.", b"1.", 1)),
        (folder.metrics, lambda content: content[:-20]),
        (folder.survival, lambda content: content[:-20]),
    ):
        before = path.read_bytes()
        path.write_bytes(change(before))
        assert path.name in str(what_is_damaged(folder))
        path.write_bytes(before)
    assert not folder.spikes.exists()  # of a network that does not spike
    folder.spikes.write_text("[]")
    assert "spikes.json" in str(what_is_damaged(folder))
    folder.model.unlink()
    folder.metrics.write_bytes(folder.metrics.read_bytes().replace(b"0.", b"1.", 1))
    resume(folder.path)
    assert what_is_damaged(folder) is None and folder.model.read_bytes() == model
    same_bits(folder.path, whole.folder)

    # a kept checkpoint of another epoch is no other result
    folder.summary.unlink()
    write_checkpoint(folder.kept, {"epoch": 99})
    monkeypatch.setattr("dpap.experiment.train.choose", lambda records, protocol: records[0])
    monkeypatch.setattr("dpap.experiment.finish.choose", lambda records, protocol: records[0])
    with pytest.raises(UserError, match=r"kept\.pt holds epoch 99, expected 1"):
        resume(folder.path)
    folder.kept.write_bytes(folder.kept.read_bytes()[:-9])
    said.clear()
    with pytest.raises(UserError, match=r"kept\.pt is not a readable checkpoint"):
        resume(folder.path, progress=progress)
    assert any("kept.pt" in line and "unless a later epoch" in line for line in said)


def test_of_a_finished_run_the_configuration_is_verified_too(tiny: Any) -> None:
    config = small(tiny)
    summary, folder, progress = train(config), RunFolder(config.folder), StopAt(epoch=0, batch=0)
    said: list[str] = []
    progress.message = said.append  # type: ignore[method-assign]
    assert resume(folder.path, progress=progress) == summary and not said
    for path, change, words in (
        (folder.config, lambda content: b"garbage: [", r"config\.yaml: expected YAML"),
        (
            folder.config,
            lambda content: content.replace(b"epochs: 3", b"epochs: 4"),
            r"training\.epochs changed",
        ),
        (folder.facts, lambda content: content[:100], r"run\.json: expected JSON"),
        (folder.facts, lambda content: content.replace(b"seed: 0", b"seed: 1"), r"run\.json: it was changed"),
    ):
        before = path.read_bytes()
        path.write_bytes(change(before))
        with pytest.raises(UserError, match=words):
            resume(folder.path, progress=progress)
        path.write_bytes(before)
    folder.config.write_bytes(folder.config.read_bytes().replace(b"root: null", b"root: moved"))
    folder.facts.rename(folder.path / "away")
    assert resume(folder.path, progress=progress) == summary
    assert len(said) == 1 and "run.json is missing" in said.pop()
    (folder.path / "away").rename(folder.facts)
    assert resume(folder.path, progress=progress) == summary
    assert len(said) == 1 and "data.root is not what the run began with" in said.pop()
    write_json(folder.summary, {})
    assert "summary.json: expected the summary of a run" in str(what_is_damaged(folder))


def test_a_configuration_that_changed_before_the_first_checkpoint_is_found(tiny: Any) -> None:
    config = small(tiny)
    folder = RunFolder(config.folder)
    folder.make()
    folder.begin(config.as_yaml(), {"config": config.as_yaml()})
    said: list[str] = []
    check_configuration(folder, config, said.append)
    assert not said
    moved = small(tiny, out="elsewhere")
    check_configuration(folder, moved, said.append)
    assert not said
    check_configuration(folder, tiny_on(config, threads=2), said.append)
    assert len(said) == 1 and "training.threads" in said[0]
    with pytest.raises(UserError, match=r"training\.epochs changed"):
        check_configuration(folder, tiny_on(config, epochs=4), print)
    with pytest.raises(UserError, match="structure changed"):
        check_configuration(folder, replace(config, structure="oull"), print)
    write_json(folder.facts, {"name": "of an earlier version"})
    check_configuration(folder, tiny_on(config, epochs=4), print)


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{other}: &{other} [{', '.join([f'*{one}'] * 9)}]\n"
    for one, other in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "expected YAML"),
        ("\x00", "expected YAML"),
        ("3", "a configuration holds keys and values; got 3"),
        ("pruning: 3", "a configuration holds keys and values; got 3"),
        ("training: {1: 2}", "a configuration holds keys and values"),
        ("data: {class_path: os.system}", "plain values"),
        (LAUGHS, "a configuration has at most"),
    ],
)
def test_what_run_json_says_of_the_configuration_may_be_anything(text: str, words: str, tiny: Any) -> None:
    config = small(tiny)
    folder = RunFolder(config.folder)
    folder.make()
    folder.begin(config.as_yaml(), {"config": text})
    with pytest.raises(UserError, match=f"the configuration in .*run.json.*{words}"):
        check_configuration(folder, config, print)


def test_a_checkpoint_whose_content_does_not_fit_its_run_is_named(tiny: Any) -> None:
    config = small(tiny)
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=StopAt(epoch=3, batch=1))
    folder = RunFolder(config.folder)
    state = read_checkpoint(folder.checkpoint)
    momenta = next(iter(state["optimizer"]["state"].values()))
    for part, other, words in (
        ("config", 3, "configuration holds keys and values"),
        ("records", "[]", "does not hold the records of its 2 epochs"),
        ("records", "[3]", "AttributeError"),
        ("survival", "{", "JSONDecodeError"),
        ("pruner", [], "ValueError: this is no state of a Pruner"),
        ("model", {}, "RuntimeError"),
        ("optimizer", {"state": {}}, "KeyError: 'param_groups'"),
        (
            "optimizer",
            with_state(state, {**momenta, "exp_avg": torch.ones(1, 2)}),
            "exp_avg of parameter 0 must have",
        ),
        ("optimizer", with_state(state, {}), "the optimizer remembers the same of each parameter"),
        ("optimizer", with_setting(state, eps="x"), "eps of the optimizer is 1e-08; got 'x'"),
    ):
        write_checkpoint(folder.checkpoint, {**state, part: other})
        with pytest.raises(UserError, match=words) as caught:
            resume(folder.path)
        assert str(folder.checkpoint) in str(caught.value)
    write_checkpoint(folder.checkpoint, state)
    resume(folder.path)


def with_state(state: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    """A state of an optimizer that remembers something else of its first parameter."""
    optimizer = state["optimizer"]
    return {**optimizer, "state": {**optimizer["state"], 0: first}}


def with_setting(state: dict[str, Any], **settings: Any) -> dict[str, Any]:
    optimizer = state["optimizer"]
    return {**optimizer, "param_groups": [{**group, **settings} for group in optimizer["param_groups"]]}


def tiny_on(config: Any, **training: Any) -> Any:
    return replace(config, training=replace(config.training, **training))
