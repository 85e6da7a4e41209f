import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import dpap.experiment.train as module
from dpap.baselines import GradientRewiringConfig
from dpap.data import Split
from dpap.experiment.checkpoint import read_checkpoint
from dpap.experiment.comparing.methods import PAPER
from dpap.experiment.config import ExperimentConfig, load_config
from dpap.experiment.errors import Diverged, UserError
from dpap.experiment.progress import Quiet
from dpap.experiment.run_folder import RunFolder
from dpap.experiment.sealed import append, read_json, read_lines
from dpap.experiment.train import resume, train
from dpap.models import build_network
from dpap.pruning.config import PruningConfig
from dpap.surgery.storage import load
from support.runs import StopAt, same_bits, timeless

PAPERS = {name: getattr(PruningConfig.paper(), name) for name in PAPER}
CASES = {
    "dense": {"prune": False},
    "dense, sgd": {"prune": False, "training": {"optimizer": "sgd", "learning_rate": 0.05}},
    "compacted": {},
    "compacted, sgd": {"training": {"optimizer": "sgd", "learning_rate": 0.05}},
    "silent": {"pruning": {"compact": "manual"}},
    "drawn at random": {"pruning": {"criterion": "random"}},
    "released code": {"pruning": {**PAPERS, "criterion": "released"}},
    "timesteps": {"pruning": {"timestep_target": 0.3}},
    "energy": {"pruning": {"target_of": "energy", "timesteps": True}},
    "ann, dropout, augmented": {
        "network": {"layers": "6C3-BN-MaxPool2-20FC-Dropout0.5-10FC", "neuron": "relu"},
        "data": {"augment": True},
    },
    "bfloat16, channels last": {"training": {"precision": "bfloat16", "channels_last": True}},
    "gradual magnitude": {"method": "gradual_magnitude"},
    "gradient rewiring": {
        "method": "gradient_rewiring",
        "rewiring": GradientRewiringConfig(alpha=1.0),
        "training": {"weight_decay": 0.01, "channels_last": True},
    },
    "kept by validation": {"data": {"validation": 0.2}, "protocol": "validation"},
    "the paper's rule": {"pruning": PAPERS},
    "small from scratch": {"method": "scratch", "data": {"validation": 0.2}, "protocol": "validation"},
}


@pytest.mark.parametrize("case", CASES)
def test_an_interrupted_run_goes_on_to_the_same_bits(case: str, tiny: Any, tmp_path: Path) -> None:
    config: ExperimentConfig = tiny(**CASES[case])
    whole = train(config)
    shutil.move(config.folder, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=StopAt(epoch=3, batch=2))
    folder = RunFolder(config.folder)
    assert [record["epoch"] for record in read_lines(folder.metrics)] == [1, 2]
    torch.manual_seed(99)
    resumed = resume(config.folder)
    assert timeless(resumed) == timeless(whole)
    same_bits(config.folder, tmp_path / "whole")
    for name in ("metrics.jsonl", "survival.jsonl"):
        ours, theirs = read_lines(config.folder / name), read_lines(tmp_path / "whole" / name)
        assert timeless(ours) == timeless(theirs)
        assert len(ours) == (0 if name.startswith("survival") and not config.prune else 4)
    ours, theirs = load_file(folder.model), load_file(tmp_path / "whole" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_was_written_past_the_checkpoint_is_dropped(tiny: Any, tmp_path: Path) -> None:
    config = tiny(prune=False)
    train(config)
    shutil.copytree(config.folder, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, overwrite=True, progress=StopAt(epoch=2, batch=1))
    folder = RunFolder(config.folder)
    append(folder.metrics, {"epoch": 2, "train_loss": 0.0})
    with folder.metrics.open("a") as file:
        file.write('{"epoch": 3, "trai')
    resume(config.folder)
    same_bits(config.folder, tmp_path / "whole")
    assert timeless(read_lines(folder.metrics)) == timeless(read_lines(tmp_path / "whole" / "metrics.jsonl"))


def test_a_run_that_stopped_in_its_first_epoch_goes_on_too(tiny: Any, tmp_path: Path) -> None:
    config = tiny(training={"epochs": 3})
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=StopAt(epoch=1, batch=2))
    assert not RunFolder(config.folder).checkpoint.exists()
    resumed = resume(config.folder)
    assert timeless(train(config, overwrite=True)) == timeless(resumed)


def test_ctrl_c_inside_the_data_loses_only_that_epoch(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(prune=False)
    original, calls = Split.batches, []

    def batches(self: Split, size: int, shuffle_seed: int | None = None, **options: Any) -> Any:
        calls.append(shuffle_seed)
        for batch in original(self, size, shuffle_seed, **options):
            if shuffle_seed is not None and sum(seed is not None for seed in calls) == 2:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(Split, "batches", batches)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    assert read_checkpoint(RunFolder(config.folder).checkpoint)["epoch"] == 1


def test_a_loss_that_is_no_number_stops_with_advice(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(prune=False, training={"schedule": "constant"})
    steps = []

    def loss_function(training: Any) -> Any:
        def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            if logits.requires_grad:
                steps.append(1)
            return logits.sum() * (float("nan") if len(steps) == 9 else 0.0)

        return loss

    monkeypatch.setattr(module, "loss_function", loss_function)
    with pytest.raises(Diverged, match=r"nan in batch 3.*0\.01.*epoch 2.*learning_rate.*after epoch 1"):
        train(config)
    folder = RunFolder(config.folder)
    assert read_checkpoint(folder.checkpoint)["epoch"] == 1
    assert not folder.summary.exists()


def test_an_epoch_that_no_memory_holds_says_what_to_lower(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(module, "train_epoch", too_large)
    with pytest.raises(
        UserError, match=r"20.00 GiB at once; lower data.batch_size \(now 32\), .*network.timesteps"
    ):
        train(tiny())


def test_the_run_folder_holds_what_a_report_needs(tiny: Any) -> None:
    config = tiny(data={"validation": 0.2})
    summary = train(config, command="dpap train --seed 0")
    folder = RunFolder(config.folder)
    facts = json.loads(folder.facts.read_text())
    assert facts["command"] == "dpap train --seed 0"
    assert (facts["spiking"], facts["timesteps"], facts["dataset"]) == (True, 2, "digits")
    assert "conv1" in facts["wiring"]
    assert load_config(folder.config) == config
    records = read_lines(folder.metrics)
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]
    for record in records:
        for name in ("train_accuracy", "test_accuracy", "validation_accuracy", "sparsity"):
            assert 0 <= record[name] <= 1
        assert {layer["name"] for layer in record["layers"]} == {"conv1", "fc1", "fc2"}
    assert records[-1]["sparsity"] == pytest.approx(0.6, abs=0.02)
    assert any(record["compacted"] for record in records)
    survival = read_lines(folder.survival)[-1]["layers"]
    assert [value is None for value in survival["fc1"]].count(False) == records[-1]["layers"][1]["alive"]
    assert read_json(folder.summary) == summary
    for cost in (summary["before"], summary["after"]):
        assert 0 < cost["latency_low"] <= cost["latency_seconds"] <= cost["latency_high"]
    (spikes,) = [layer for layer in read_json(folder.spikes)["layers"] if layer["name"] == "spike1"]
    assert spikes["units"] == records[-1]["layers"][0]["alive"]
    assert {len(row["spikes"]) for row in spikes["rows"]} == {2}
    assert summary["after"]["parameters"] < summary["before"]["parameters"]
    assert summary["after"]["macs"] < summary["before"]["macs"]
    assert summary["after"]["energy"] == pytest.approx(
        summary["before"]["energy"] * (1 - summary["sparsity"])
    )
    counted = summary["after"]
    assert counted["picojoules"] == pytest.approx(0.9 * counted["accumulates"] + 4.6 * counted["multiplies"])
    assert counted["picojoules"] < summary["before"]["picojoules"]
    assert (summary["target_of"], summary["achieved"]) == ("weights", summary["sparsity"])


def test_the_model_file_holds_the_kept_network(tiny: Any) -> None:
    config = tiny(protocol="paper", training={"epochs": 5})
    summary = train(config)
    records = read_lines(RunFolder(config.folder).metrics)
    kept = records[summary["final_epoch"] - 1]
    assert kept["test_accuracy"] == max(
        r["test_accuracy"] for r in records if r["sparsity"] > kept["sparsity"] - 0.01
    )
    assert summary["final_test_accuracy"] == pytest.approx(kept["test_accuracy"], abs=0.02)
    model = load(RunFolder(config.folder).model, build_network(config.network, (1, 8, 8)))
    assert sum(p.numel() for p in model.parameters()) == summary["after"]["parameters"]


@pytest.mark.parametrize("method", ["gradual_magnitude", "gradient_rewiring"])
def test_a_baseline_ends_in_a_network_with_zeros(method: str, tiny: Any) -> None:
    config = tiny(
        method=method,
        rewiring=GradientRewiringConfig(alpha=1.0),
        protocol="validation",
        data={"validation": 0.2},
    )
    summary = train(config)
    before, after = summary["before"], summary["after"]
    kept = read_lines(RunFolder(config.folder).metrics)[summary["final_epoch"] - 1]
    assert summary["sparsity"] == kept["sparsity"] > 0.2
    assert after["parameters"] == before["parameters"]
    assert after["weights"] == round(before["weights"] * (1 - summary["sparsity"]))
    assert after["weights"] == sum(layer["weights_alive"] for layer in kept["layers"])


@pytest.mark.parametrize("method", ["gradual_magnitude", "gradient_rewiring"])
def test_a_baseline_without_a_target_is_refused(method: str, tiny: Any) -> None:
    config = tiny(method=method, pruning={"target": None, "end_epoch": None})
    with pytest.raises(UserError, match=r"pruning: Grad.* prunes to a target.*set pruning\.target"):
        train(config)
    assert not RunFolder(config.folder).holds_a_run()


def test_a_finished_run_is_left_alone(tiny: Any) -> None:
    config = tiny(prune=False, training={"epochs": 1})
    summary = train(config)
    before = {path: path.stat().st_mtime_ns for path in config.folder.iterdir()}
    assert resume(config.folder) == summary
    assert {path: path.stat().st_mtime_ns for path in config.folder.iterdir()} == before
    with pytest.raises(UserError, match="already holds a run"):
        train(config)


def test_a_changed_configuration_is_not_resumed(tiny: Any) -> None:
    config = tiny(prune=False)
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=StopAt(epoch=2, batch=1))
    path = RunFolder(config.folder).config
    path.write_text(path.read_text().replace("learning_rate: 0.01", "learning_rate: 0.02"))
    with pytest.raises(UserError, match=r"training\.learning_rate changed"):
        resume(config.folder)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        resume(tmp_path)


def test_firing_rates_can_be_learned(tiny: Any) -> None:
    config = tiny(
        prune=False,
        network={"readout": "rate", "timesteps": 4},
        training={"loss": "rate_mse", "gradient_clip": 1.0},
    )
    train(config)
    records = read_lines(RunFolder(config.folder).metrics)
    assert records[-1]["train_loss"] < records[0]["train_loss"] < 1


def test_the_settings_of_torch_are_put_back(tiny: Any) -> None:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    train(tiny(prune=False, training={"epochs": 1}))
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, deterministic)


@pytest.mark.parametrize(("precision", "has", "warned"), [
    ("bfloat16", False, True), ("bfloat16", True, False), ("float32", False, False),
])  # fmt: skip
def test_emulated_bfloat16_is_reported(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, precision: str, has: bool, warned: bool
) -> None:
    monkeypatch.setattr(module, "has_bfloat16", lambda device: has)
    lines: list[str] = []
    progress = Quiet()
    monkeypatch.setattr(progress, "message", lines.append)
    train(tiny(prune=False, training={"epochs": 1, "precision": precision}), progress=progress)
    assert any("float32" in line for line in lines) is warned
