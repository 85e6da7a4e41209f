"""Pruning in a loop whose state Accelerate saves, on real digits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("accelerate")
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file

from dpap.integrations.accelerate import prepare_pruner
from support.accelerate_run import BATCH, CONFIG, EPOCHS, train
from support.hooks import hooks, same
from support.killed import run_until_killed
from support.small_digits import digits, small_network

pytestmark = pytest.mark.filterwarnings("default")  # of the framework
STEPS = 384 // BATCH


@pytest.fixture(autouse=True)
def no_accelerator_yet() -> None:
    """Accelerate keeps one state for a process, of the first accelerator."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    config = replace(CONFIG, compact="auto")
    whole, pruner = train(tmp_path / "whole", config)
    run_until_killed("support.accelerate_run", tmp_path / "killed", 2 * STEPS + 3)
    saved = tmp_path / "killed" / "1"
    assert len(load_file(saved / "model.safetensors")["0.weight"]) < 12
    resumed, again = train(tmp_path / "resumed", config, load=saved)
    assert same(whole, resumed)
    assert again.epoch == EPOCHS
    assert pruner.sparsity == again.sparsity == pytest.approx(0.6, abs=0.005)
    again.detach()
    assert hooks(resumed) == 0


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2, "mixed_precision": "bf16"}])
def test_the_dead_leave_at_the_end_and_a_run_can_be_resumed(options: dict[str, Any], tmp_path: Path) -> None:
    whole, pruner = train(tmp_path / "whole", **options)
    resumed, again = train(tmp_path / "resumed", load=tmp_path / "whole" / "1", **options)
    assert same(whole, resumed)
    for one in (pruner, again):
        one.compact()
        one.detach()
    assert same(whole, resumed)
    assert len(torch.as_tensor(whole[0].weight)) < 12


def test_a_larger_state_than_the_network_is_refused(tmp_path: Path) -> None:
    train(tmp_path)
    accelerator, model = Accelerator(cpu=True), small_network()
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
    pruner = prepare_pruner(accelerator, model, digits(8, 1)[0], optimizer, CONFIG)
    accelerator.load_state(str(tmp_path / "3"))
    pruner.compact()
    with pytest.raises(RuntimeError, match="removed since it was saved"):
        accelerator.load_state(str(tmp_path / "0"))
    pruner.detach()
    assert hooks(model) == 0
