"""Files of earlier versions go on being read: each folder here holds what one version wrote (`write.py`)."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch

import dpap
from dpap.experiment.train import resume
from dpap.pruning.versions import VERSION, upgraded

HERE = Path(__file__).parent
OLD = HERE / "0.1.0"

_spec = importlib.util.spec_from_file_location("versions_write", HERE / "write.py")
assert _spec is not None and _spec.loader is not None
write = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(write)


def _read(name: str) -> dict:
    state: dict = torch.load(OLD / name, weights_only=True)
    return state


def test_a_pruner_goes_on_from_a_state_of_0_1_0_as_that_version_did() -> None:
    state, after = _read("state.pt"), _read("after.pt")
    model, optimizer, pruner = write.learner()
    pruner.load_state_dict(state["pruner"])
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    assert pruner.epoch == 2
    assert pruner.survival() == state["survival"]
    assert pruner.sparsity == state["sparsity"]
    write.epoch(model, optimizer, pruner)
    pruner.compact()
    for name, values in pruner.survival().items():
        stored = after["survival"][name]
        assert [value is None for value in values] == [value is None for value in stored]
        assert [value for value in values if value is not None] == pytest.approx(
            [value for value in stored if value is not None], rel=1e-9
        )
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, after["model"][name], rtol=1e-7, atol=1e-9)


def test_a_model_file_of_0_1_0_loads() -> None:
    model = dpap.load(OLD / "model.safetensors", write.network().double()).eval()
    expected = torch.load(OLD / "output.pt", weights_only=True)
    torch.testing.assert_close(model(write.batch(99)[0]), expected, rtol=1e-9, atol=1e-12)


def test_a_run_that_0_1_0_left_is_resumed(tmp_path: Path) -> None:
    shutil.copytree(OLD / "run", tmp_path / "run")
    summary = resume(tmp_path / "run")
    expected = json.loads((OLD / "run-summary.json").read_text())
    assert summary["epochs"] == expected["epochs"] == 4
    for name in ("sparsity", "timestep_sparsity"):
        assert summary[name] == pytest.approx(expected[name], abs=0.02)


def test_a_state_says_its_version() -> None:
    _, _, pruner = write.learner()
    assert pruner.state_dict()["version"] == VERSION


def test_what_is_no_state_of_a_known_version_is_refused() -> None:
    _, _, pruner = write.learner()
    state = pruner.state_dict()
    with pytest.raises(ValueError, match="version 99; this dpap reads versions 1 to"):
        upgraded({**state, "version": 99})
    with pytest.raises(ValueError, match=r"no state of a Pruner, for it lacks .*masks"):
        pruner.load_state_dict({"model": {}})
