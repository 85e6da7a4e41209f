"""Pruning in the loop of the transformers Trainer, on real digits."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from safetensors.torch import load_file
from transformers import EarlyStoppingCallback, TrainerCallback, ViTConfig, ViTForImageClassification

from dpap.archive import write_archive
from dpap.integrations.transformers import FILE, PrunerCallback, _read
from support.hooks import hooks, same
from support.killed import run_until_killed
from support.small_digits import digits
from support.transformers_run import BATCH, CONFIG, END, EPOCHS, Classifier, trainer

pytestmark = [
    # of the framework
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("error:.*(dead|silent|these weights are of)"),
]
STEPS = 384 // BATCH


def trained(folder: Path, *callbacks: TrainerCallback, **options: Any) -> Any:
    fit = trainer(folder, *callbacks, **options)
    fit.train()
    return fit


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Also with dropout and in a shuffled order, whose random state the Trainer saves."""
    config, callback = replace(CONFIG, compact="auto"), PrunerCallback(replace(CONFIG, compact="auto"))
    whole = trained(tmp_path / "whole", callback)
    run_until_killed("support.transformers_run", tmp_path / "killed", 2 * STEPS + 3)
    folder = tmp_path / "killed" / f"checkpoint-{2 * STEPS}"
    assert len(load_file(folder / "model.safetensors")["net.0.weight"]) < 12
    again = PrunerCallback(config)
    resumed = trainer(tmp_path / "killed", again)
    resumed.train(resume_from_checkpoint=True)
    assert same(whole.model, resumed.model)
    assert callback.pruner is not None and again.pruner is not None
    assert again.pruner.epoch == EPOCHS
    assert callback.pruner.sparsity == again.pruner.sparsity == pytest.approx(0.6, abs=0.005)
    assert hooks(resumed.model) == 0


@pytest.mark.parametrize(
    "options", [{}, {"optim": "sgd", "optim_args": "momentum=0.9", "learning_rate": 0.05}]
)
def test_saved_by_steps_at_the_end_of_an_epoch_it_goes_on_to_the_same_bits(
    options: dict[str, Any], tmp_path: Path
) -> None:
    # evaluated before it saves, for that draws random numbers
    by_steps = {"save_strategy": "steps", "save_steps": STEPS, "eval_strategy": "steps", "eval_steps": STEPS}
    options = {**by_steps, **options}
    whole = trained(tmp_path / "whole", PrunerCallback(CONFIG), **options)
    folder = tmp_path / "whole" / f"checkpoint-{2 * STEPS}"
    resumed = trainer(tmp_path / "resumed", PrunerCallback(CONFIG, checkpoint=folder), **options)
    resumed.train(resume_from_checkpoint=str(folder))
    assert same(whole.model, resumed.model)


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-9], lambda content: b"x" + content, lambda content: b""]
)
def test_a_damaged_state_of_the_pruner_is_named(damage: Any, tmp_path: Path) -> None:
    whole = tmp_path / FILE
    write_archive(whole, {"log": "a", "pruner": torch.ones(3)})
    assert _read(whole)["log"] == "a" and _read(tmp_path / "nowhere") is None
    whole.write_bytes(damage(whole.read_bytes()))
    with pytest.raises(ValueError, match=f"{FILE} is no readable state of a pruner"):
        _read(whole)
    torch.save([1], whole)
    with pytest.raises(ValueError, match="no state of a pruner that this callback saved"):
        _read(whole)


def test_the_pruner_of_another_run_is_not_taken(tmp_path: Path) -> None:
    short = {"num_train_epochs": 1, "eval_strategy": "no"}
    with pytest.warns(UserWarning, match="of epoch 1"):
        trained(tmp_path / "one", PrunerCallback(CONFIG), **short)
        trained(tmp_path / "other", PrunerCallback(CONFIG), learning_rate=1e-3, **short)
    with pytest.raises(ValueError, match=r"PrunerCallback\(checkpoint=\.\.\.\)"):
        trainer(tmp_path / "other", PrunerCallback(CONFIG)).train(
            resume_from_checkpoint=str(tmp_path / "one" / f"checkpoint-{STEPS}")
        )


def test_what_is_evaluated_and_saved_is_pruned_and_logged(tmp_path: Path) -> None:
    callback = PrunerCallback(CONFIG)
    fit = trained(tmp_path, callback)
    assert callback.pruner is not None
    logged = [entry["sparsity"] for entry in fit.state.log_history if "sparsity" in entry]
    assert len(logged) == EPOCHS
    assert logged[-1] == callback.pruner.sparsity == pytest.approx(0.6, abs=0.005)
    measured = [entry["eval_loss"] for entry in fit.state.log_history if "eval_loss" in entry]
    folder = tmp_path / f"checkpoint-{EPOCHS * STEPS}"
    state = torch.load(folder / FILE, weights_only=True)["pruner"]
    dead = ~state["masks"]["units"]["net.0"]
    weights = load_file(folder / "model.safetensors")
    assert dead.any() and not weights["net.0.weight"][dead].any()
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    assert logged == [entry["sparsity"] for entry in history if "sparsity" in entry]
    assert fit.evaluate()["eval_loss"] == pytest.approx(measured[-1])


class Favourite(TrainerCallback):
    """Makes one epoch the best."""

    def __init__(self, best: int) -> None:
        self.best = best

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        metrics["eval_distance"] = abs(round(state.epoch) - self.best)


BEST = {"load_best_model_at_end": True, "metric_for_best_model": "distance", "greater_is_better": False}


def test_the_best_checkpoint_is_taken_whole_and_then_removed_from(tmp_path: Path) -> None:
    callback = PrunerCallback(CONFIG, compact=True)
    fit = trained(tmp_path, callback, Favourite(END), **BEST)
    assert callback.pruner is not None and callback.pruner.epoch == END
    saved = load_file(tmp_path / f"checkpoint-{END * STEPS}" / "model.safetensors")
    assert fit.model.net[0].out_channels == int(saved["net.0.weight"].flatten(1).any(1).sum()) < 12
    dense = Classifier().eval()
    dense.load_state_dict(saved)
    x = digits()[2]
    torch.testing.assert_close(fit.model.eval()(x), dense(x))
    assert hooks(fit.model) == 0


def test_the_best_of_a_model_that_became_smaller_since_is_the_larger_one(tmp_path: Path) -> None:
    callback = PrunerCallback(replace(CONFIG, compact="auto"), compact=True)
    with pytest.warns(UserWarning, match="these weights are of epoch 1"):
        fit = trained(tmp_path, callback, Favourite(1), **BEST)
    saved = load_file(tmp_path / f"checkpoint-{STEPS}" / "model.safetensors")
    assert fit.model.net[0].out_channels == len(saved["net.0.weight"])


def test_early_stopping_before_the_target_is_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"epoch 1, and the target.*are pruned, not 60\.0%"):
        fit = trained(tmp_path, Favourite(1), EarlyStoppingCallback(1), PrunerCallback(CONFIG), **BEST)
    assert fit.state.global_step == 2 * STEPS
    assert hooks(fit.model) == 0


def test_a_vision_transformer_of_theirs_is_pruned_in_half_precision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=8,
        patch_size=2,
        num_channels=1,
        num_labels=10,
    )
    model = ViTForImageClassification(config)
    callback = PrunerCallback(replace(CONFIG, target=0.4), compact=True)
    trained(tmp_path, callback, model=model, bf16=True, learning_rate=3e-3, gradient_accumulation_steps=2)
    assert callback.pruner is not None
    assert callback.pruner.sparsity == pytest.approx(0.4, abs=0.005)
    assert (
        sum(one.out_features for one in model.modules() if isinstance(one, nn.Linear))
        < 2 * (32 * 5 + 64) + 10
    )


def test_a_second_training_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    callback = PrunerCallback(CONFIG, compact=True)
    fit = trainer(tmp_path, callback, num_train_epochs=2, save_strategy="no")
    with pytest.warns(UserWarning, match="of epoch 2"):
        fit.train()
    channels = fit.model.net[0].out_channels
    fit.train()
    assert callback.pruner is not None and callback.pruner.epoch == EPOCHS
    assert callback.pruner.sparsity == pytest.approx(0.6, abs=0.005)
    assert fit.model.net[0].out_channels <= channels
