from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

import dpap.experiment.comparing.compare as module
from dpap.experiment.comparing.compare import check_data_of, compare, seconds_left, states
from dpap.experiment.comparing.grid import Planned, Row, plan
from dpap.experiment.comparing.results import EpochResult, Result, read_csv
from dpap.experiment.config import ExperimentConfig
from dpap.experiment.errors import Diverged, UserError
from dpap.experiment.progress import Quiet
from dpap.experiment.run_folder import RunFolder
from dpap.experiment.sealed import read_json, read_lines


class Recorder(Quiet):
    """Keeps the messages."""

    def __init__(self, messages: list[str]) -> None:
        self._messages = messages

    def message(self, text: str) -> None:
        self._messages.append(text)


@pytest.fixture
def planned(tiny: Any, tmp_path: Path) -> Callable[..., list[Planned]]:
    def make(methods: list[str], seeds: list[int], **how: Any) -> list[Planned]:
        config = tiny(**{"training": {"epochs": 2}, "pruning": {"end_epoch": 2}, **how})
        return plan([Row("tiny", config, methods, [0.4], seeds)], tmp_path)

    return make


def test_data_that_recipes_share_is_read_once_and_named_once(
    planned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(module, "load_data", seen.append)
    runs = planned(["dpap", "magnitude"], [0, 1], data={"folds": 3})
    assert len({run.config.data.fold for run in runs}) == 2
    check_data_of(runs)
    assert len(seen) == 1
    monkeypatch.undo()
    whole = replace(runs[0].config.data, folds=0, fold=0)
    lost = [
        replace(run, recipe=recipe, config=replace(run.config, data=replace(whole, name=name)))
        for recipe, name in (("one", "mnist"), ("other", "mnist"), ("third", "digits"))
        for run in runs
    ]
    monkeypatch.delenv("DPAP_DATA", raising=False)
    with pytest.raises(
        UserError, match=r"^one, other: the data: mnist needs a folder.*\nNo run was begun"
    ) as caught:
        check_data_of(lost)
    assert str(caught.value).count("\n") == 1
    for run in lost:
        run.files.make()
        run.files.summary.touch()
    check_data_of(lost)  # nothing is left to do
    with pytest.raises(UserError, match="needs a folder"):
        check_data_of(lost, overwrite=True)


def trained_again(*_: Any, **__: Any) -> None:
    raise AssertionError("a finished run was trained again")


def test_methods_are_paired_and_written_down(
    planned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = planned(["dpap", "magnitude", "gradual_magnitude"], [0, 1])
    messages: list[str] = []
    done = compare(runs, tmp_path, progress=lambda: Recorder(messages))
    assert not done.failed and not done.elsewhere
    assert [(each.method, each.target, each.seed) for each in done.results] == [
        (run.method, run.target, run.seed) for run in runs
    ]
    assert any("run 8 of 8" in line and "7 finished" in line and "left" in line for line in messages)

    # one seed: the same weights and batches until the first death, whatever the method
    losses = {
        run.seed: {
            read_lines(RunFolder(each.config.folder).metrics)[0]["train_loss"]
            for each in runs
            if each.seed == run.seed
        }
        for run in runs
    }
    assert all(len(each) == 1 for each in losses.values())
    assert losses[0] != losses[1]

    header = (tmp_path / "results.csv").read_text().splitlines()[0]
    assert header.split(",") == [field.name for field in fields(Result)]
    assert read_csv(Result, tmp_path / "results.csv") == done.results
    epochs = read_csv(EpochResult, tmp_path / "epochs.csv")
    assert len(epochs) == 2 * len(runs)
    for run, result in zip(runs, done.results, strict=True):
        folder = RunFolder(run.config.folder)
        best = read_json(RunFolder(run.dense).summary)["best_test_accuracy"]
        lines = read_lines(folder.metrics)
        reached = [line["epoch"] for line in lines if line["test_accuracy"] >= best]
        assert result.converged == (reached[0] if reached else None)
        assert (result.seconds_to_converge is None) == (result.converged is None)
        own = [each for each in epochs if (each.method, each.seed) == (run.method, run.seed)]
        assert [each.accuracy for each in own] == [line["test_accuracy"] for line in lines]
        if run.method == "dense":
            assert {each.weights_alive for each in own} == {result.weights}
        else:
            assert result.sparsity == pytest.approx(0.4, abs=0.02)
            assert own[-1].weights_alive == pytest.approx(0.6 * own[0].weights_alive, rel=0.05)
            assert (folder.path / folder.twin.read_text().strip()).resolve() == run.dense.resolve()

    monkeypatch.setattr(module, "train", trained_again)
    assert compare(runs, tmp_path).results == done.results
    assert {state for _, state, _ in states(runs, tmp_path)} == {"finished"}
    assert seconds_left(runs) == (0.0, True)
    other = [replace(run, config=replace(run.config, protocol="paper")) for run in runs]
    with pytest.raises(UserError, match="another configuration"):
        compare(other, tmp_path)


def test_a_stopped_run_goes_on_and_is_not_begun_again(
    planned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = planned(["dpap"], [0])
    whole = compare(plan_in(runs, tmp_path / "whole"), tmp_path / "whole").results

    class Stop(Quiet):
        def end_epoch(self, record: Any, epochs: int, seconds_left: float) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(runs, tmp_path, progress=Stop)
    assert [state for _, state, _ in states(runs, tmp_path)] == ["started", "to do"]
    begun: list[str] = []
    train = module.train

    def counted(config: ExperimentConfig, **how: Any) -> Any:
        begun.append(config.name)
        return train(config, **how)

    monkeypatch.setattr(module, "train", counted)
    done = compare(runs, tmp_path).results
    assert begun == [runs[1].config.name]
    assert [(each.accuracy, each.sparsity) for each in done] == [
        (each.accuracy, each.sparsity) for each in whole
    ]


def plan_in(runs: list[Planned], folder: Path) -> list[Planned]:
    return [
        replace(
            run,
            config=replace(run.config, out=str(folder / run.config.folder.name)),
            dense=folder / run.dense.name,
        )
        for run in runs
    ]


def test_a_run_that_fails_is_reported_and_the_others_go_on(
    planned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = planned(["dpap", "random"], [0])
    train = module.train

    def fails(config: ExperimentConfig, **how: Any) -> Any:
        if config.name.startswith("dpap"):
            raise Diverged("the loss is nan (epoch 1)")
        return train(config, **how)

    monkeypatch.setattr(module, "train", fails)
    done = compare(runs, tmp_path)
    assert [(run.method, why) for run, why in done.failed] == [("dpap", "the loss is nan (epoch 1)")]
    assert [each.method for each in done.results] == ["dense", "random"]
    assert ("failed", "the loss is nan (epoch 1)") in [
        (state, more) for _, state, more in states(runs, tmp_path)
    ]
    monkeypatch.undo()
    again = compare(runs, tmp_path)
    assert not again.failed
    assert len(again.results) == 3
    assert not RunFolder(runs[1].config.folder).failure.exists()


def test_a_run_of_another_process_is_left_to_it(
    planned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = planned(["dpap"], [0])
    with module._lock(runs[0], tmp_path):
        done = compare(runs, tmp_path)
        assert [state for _, state, _ in states(runs, tmp_path)] == ["being run", "finished"]
    assert [run.method for run in done.elsewhere] == ["dense"]
    assert [(each.method, each.converged) for each in done.results] == [("dpap", None)]
    seconds, whole = seconds_left(runs)
    assert seconds > 0 and whole
    assert [each.method for each in compare(runs, tmp_path).results] == ["dense", "dpap"]
