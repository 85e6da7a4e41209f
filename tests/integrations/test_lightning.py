"""Pruning in Lightning's loop: on real digits, by its real trainer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("lightning")
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from dpap.integrations.lightning import PrunerCallback
from support.hooks import hooks, same
from support.killed import run_until_killed
from support.lightning_run import BATCH, CONFIG, END, EPOCHS, Digits, every_epoch, loaders, trainer
from support.small_digits import digits

pytestmark = [
    # of the framework: few workers, its own calls into torch, checkpoints in a folder that is there
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("error:.*(dead|silent|these weights are of)"),
]
STEPS = 384 // BATCH


def example() -> Tensor:
    return digits(16, 1)[0]


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole, config = Digits(), replace(CONFIG, compact="auto")
    callback = PrunerCallback(config, example())
    trainer(tmp_path / "whole", callback).fit(whole, *loaders())
    run_until_killed("support.lightning_run", tmp_path / "killed", 2 * STEPS + 3)
    saved = torch.load(tmp_path / "killed" / "last.ckpt", weights_only=True)
    assert saved["epoch"] == 1
    assert len(saved["state_dict"]["net.0.weight"]) < 12
    resumed, again = Digits(), PrunerCallback(config, example())
    trainer(tmp_path / "resumed", again).fit(
        resumed, *loaders(), ckpt_path=str(tmp_path / "killed" / "last.ckpt")
    )
    assert same(whole, resumed)
    assert callback.pruner is not None and again.pruner is not None
    assert again.pruner.epoch == EPOCHS
    assert callback.pruner.sparsity == again.pruner.sparsity == pytest.approx(0.6, abs=0.005)
    assert hooks(resumed) == 0


@pytest.mark.parametrize("removal", ["manual", "auto"])
def test_a_run_without_example_inputs_takes_its_first_batch_and_resumes_likewise(
    removal: Any, tmp_path: Path
) -> None:
    whole, config = Digits("sgd"), replace(CONFIG, compact=removal)
    trainer(tmp_path, PrunerCallback(config), every_epoch(tmp_path)).fit(whole, *loaders())
    resumed = Digits("sgd")
    trainer(tmp_path / "resumed", PrunerCallback(config)).fit(
        resumed, *loaders(), ckpt_path=str(tmp_path / "epoch=1.ckpt")
    )
    assert same(whole, resumed)


def test_what_is_measured_and_saved_is_pruned_and_logged(tmp_path: Path) -> None:
    model, callback = Digits(), PrunerCallback(CONFIG, example())
    fit = trainer(tmp_path, callback, every_epoch(tmp_path))
    fit.fit(model, *loaders())
    measured = fit.callback_metrics
    assert callback.pruner is not None
    assert float(measured["sparsity"]) == pytest.approx(callback.pruner.sparsity)
    for epoch in range(EPOCHS):
        saved = torch.load(tmp_path / f"epoch={epoch}.ckpt", weights_only=True)
        state = saved["callbacks"][callback.state_key]
        assert state["pruner"]["epoch"] == epoch + 1
        dead = ~state["pruner"]["masks"]["units"]["net.0"]
        assert int(dead.sum()) > 0 or epoch == 0
        assert not saved["state_dict"]["net.0.weight"][dead].any()
    # validation came after the last deaths: it measures the network that the last checkpoint holds
    (after,) = trainer(tmp_path).validate(model, loaders()[1], verbose=False)
    assert after["val_loss"] == pytest.approx(float(measured["val_loss"]))


def test_the_best_checkpoint_is_taken_whole_and_then_removed_from(tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path, filename="best", monitor="epoch_twice", mode="max")
    model, callback = Favourite(END), PrunerCallback(CONFIG, example(), load_best=True, compact=True)
    fit = trainer(tmp_path, callback, best)
    fit.fit(model, *loaders())
    saved = torch.load(best.best_model_path, weights_only=True)
    assert saved["epoch"] == END - 1
    assert callback.pruner is not None and callback.pruner.epoch == END
    assert model.net[0].out_channels == int(saved["state_dict"]["net.0.weight"].flatten(1).any(1).sum()) < 12
    assert hooks(model) == 0
    # the compact network computes what the saved one did
    loss = fit.test(model, loaders()[1], verbose=False)[0]["test_loss"]
    dense = Digits()
    dense.load_state_dict(saved["state_dict"])
    (expected,) = trainer(tmp_path).test(dense, loaders()[1], verbose=False)
    assert loss == pytest.approx(expected["test_loss"], rel=1e-5)
    # and a larger checkpoint can still be tested, with the network that has become smaller
    (again,) = fit.test(model, loaders()[1], ckpt_path="best", verbose=False)
    assert again["test_loss"] == pytest.approx(expected["test_loss"], rel=1e-5)
    assert model.net[0].out_channels == 12
    assert hooks(model) == 0


class Favourite(Digits):
    """Logs a metric that is best after one given epoch."""

    def __init__(self, best: int) -> None:
        super().__init__()
        self.best = best

    def validation_step(self, batch: Any, index: int) -> None:
        super().validation_step(batch, index)
        self.log("epoch_twice", float(-abs(self.current_epoch + 1 - self.best)))


def test_the_best_of_a_network_that_became_smaller_since_is_the_larger_one(tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path, filename="best", monitor="epoch_twice", mode="max")
    model = Favourite(1)
    callback = PrunerCallback(replace(CONFIG, compact="auto"), example(), load_best=True, compact=True)
    with pytest.warns(
        UserWarning, match="these weights are of epoch 1, and the target is met at end_epoch = 3"
    ):
        trainer(tmp_path, callback, best).fit(model, *loaders())
    saved = torch.load(best.best_model_path, weights_only=True)["state_dict"]
    assert model.net[0].out_channels == len(saved["net.0.weight"])


def test_early_stopping_before_the_target_is_said(tmp_path: Path) -> None:
    stopping = EarlyStopping("epoch_twice", mode="max", patience=1)
    model, callback = Favourite(1), PrunerCallback(CONFIG, example())
    with pytest.warns(UserWarning, match=r"epoch 2, and the target.*are pruned, not 60\.0%"):
        trainer(tmp_path, callback, stopping).fit(model, *loaders())
    assert callback.pruner is not None and callback.pruner.epoch == 2
    assert hooks(model) == 0


def test_a_compact_checkpoint_is_tested_with_a_network_built_anew(tmp_path: Path) -> None:
    config = replace(CONFIG, compact="auto")
    model = Digits()
    fit = trainer(tmp_path, PrunerCallback(config, example()), every_epoch(tmp_path))
    fit.fit(model, *loaders())
    (expected,) = fit.test(model, loaders()[1], verbose=False)
    fresh = Digits()
    path = str(tmp_path / "last.ckpt")
    (got,) = trainer(tmp_path, PrunerCallback(config, example())).test(
        fresh, loaders()[1], ckpt_path=path, verbose=False
    )
    assert got == expected
    assert same(model, fresh)
    with pytest.raises(ValueError, match="give example_inputs to the callback"):
        trainer(tmp_path, PrunerCallback(config)).test(Digits(), loaders()[1], ckpt_path=path, verbose=False)


def test_compact_weights_without_the_state_of_their_pruner_are_refused(tmp_path: Path) -> None:
    config = replace(CONFIG, compact="auto")
    fit = trainer(tmp_path, PrunerCallback(config, example()))
    fit.fit(Digits(), *loaders())
    fit.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    with pytest.raises(ValueError, match="no state of a pruner is with them"):
        trainer(tmp_path, PrunerCallback(config, example())).test(
            Digits(), loaders()[1], ckpt_path=str(tmp_path / "weights.ckpt"), verbose=False
        )


def test_a_second_fit_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    model, callback = Digits("sgd"), PrunerCallback(CONFIG, example(), compact=True)
    with pytest.warns(UserWarning, match="of epoch 2"):
        trainer(tmp_path, callback, epochs=2).fit(model, *loaders())
    assert callback.pruner is not None and 0.2 < (halfway := callback.pruner.sparsity) < 0.6
    channels = model.net[0].out_channels
    trainer(tmp_path, callback, epochs=2).fit(model, *loaders())
    assert callback.pruner.epoch == EPOCHS
    assert callback.pruner.sparsity == pytest.approx(0.6, abs=0.005) != halfway
    assert model.net[0].out_channels <= channels


@pytest.mark.parametrize(
    "options", [{"precision": "bf16-mixed"}, {"accumulate_grad_batches": 5, "gradient_clip_val": 0.5}]
)
def test_precision_accumulation_and_clipping_leave_the_target_met(
    options: dict[str, Any], tmp_path: Path
) -> None:
    model, callback = Digits(), PrunerCallback(CONFIG, example(), network="net", compact=True)
    fit = trainer(tmp_path, callback, **options)
    fit.fit(model, *loaders())
    assert float(fit.callback_metrics["net/sparsity"]) == pytest.approx(0.6, abs=0.005)
    assert model.net[0].out_channels < 12
    assert callback.pruner is not None and callback.pruner.model is model.net


def test_an_exception_leaves_no_hooks(tmp_path: Path) -> None:
    class Broken(Digits):
        def training_step(self, batch: Any, index: int) -> Tensor:
            if self.global_step == 3:
                raise RuntimeError("broken")
            return super().training_step(batch, index)

    model = Broken()
    with pytest.raises(RuntimeError, match="broken"):
        trainer(tmp_path, PrunerCallback(CONFIG, example())).fit(model, *loaders())
    assert hooks(model) == 0
