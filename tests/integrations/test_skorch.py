"""Pruning in skorch's loop, on real digits."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("skorch")
from skorch.callbacks import EarlyStopping, LoadInitState, TrainEndCheckpoint

from dpap.integrations.skorch import PrunerCallback
from support.hooks import hooks, same
from support.killed import run_until_killed
from support.skorch_run import BATCH, CONFIG, END, EPOCHS, checkpoint, net
from support.small_digits import digits

X, Y, VALIDATION_X, VALIDATION_Y = digits()
STEPS = len(X) // BATCH


def fitted(*callbacks: Any, **options: Any) -> Any:
    return net(*callbacks, **options).fit(X, Y)


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    config = replace(CONFIG, compact="auto")
    whole = fitted(PrunerCallback(config))
    run_until_killed("support.skorch_run", tmp_path, 2 * STEPS + 3)
    assert len(torch.load(tmp_path / "params.pt", weights_only=True)["0.weight"]) < 12
    load = LoadInitState(checkpoint(tmp_path))
    resumed = fitted(PrunerCallback(config), load, epochs=EPOCHS - 2)
    assert same(whole.module_, resumed.module_)
    assert resumed.pruner_.pruner.epoch == len(resumed.history) == EPOCHS
    assert resumed.history[:, "sparsity"] == whole.history[:, "sparsity"]
    assert resumed.history[-1, "sparsity"] == pytest.approx(0.6, abs=0.005)
    assert hooks(resumed.module_) == 0


@pytest.mark.parametrize(
    "options", [{}, {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9, "lr": 0.05}]
)
def test_a_run_without_removal_or_validation_goes_on_to_the_same_bits(
    options: dict[str, Any], tmp_path: Path
) -> None:
    options = {"validation": False, **options}
    whole = fitted(PrunerCallback(CONFIG), **options)
    end = TrainEndCheckpoint(dirname=str(tmp_path), f_pruner="pruner.pt")
    with pytest.warns(UserWarning, match="of epoch 2, and the target is met at end_epoch = 3"):
        fitted(PrunerCallback(CONFIG), end, epochs=2, **options)
    resumed = fitted(PrunerCallback(CONFIG), LoadInitState(end), epochs=2, **options)
    assert same(whole.module_, resumed.module_)


def test_what_is_measured_and_saved_is_pruned(tmp_path: Path) -> None:
    trained = fitted(PrunerCallback(CONFIG), checkpoint(tmp_path))
    loss = nn.functional.cross_entropy(trained.forward(VALIDATION_X), VALIDATION_Y)
    assert trained.history[-1, "valid_loss"] == pytest.approx(float(loss), rel=1e-4)
    state = torch.load(tmp_path / "pruner.pt", weights_only=True)["pruner"]
    assert state["epoch"] == EPOCHS
    dead = ~state["masks"]["units"]["0"]
    assert dead.any()
    assert not torch.load(tmp_path / "params.pt", weights_only=True)["0.weight"][dead].any()


def best_at(epoch: int) -> Any:
    return lambda net: len(net.history) == epoch


def test_the_best_checkpoint_is_taken_whole_and_then_removed_from(tmp_path: Path) -> None:
    best = checkpoint(tmp_path, monitor=best_at(END), load_best=True)
    trained = fitted(PrunerCallback(CONFIG, compact=True), best)
    assert trained.pruner_.pruner.epoch == END
    saved = torch.load(tmp_path / "params.pt", weights_only=True)
    assert trained.module_[0].out_channels == int(saved["0.weight"].flatten(1).any(1).sum()) < 12
    dense = net().initialize()
    dense.module_.load_state_dict(saved)
    torch.testing.assert_close(trained.forward(VALIDATION_X), dense.forward(VALIDATION_X))
    assert hooks(trained.module_) == 0


def test_the_best_of_a_module_that_became_smaller_since_is_the_larger_one(tmp_path: Path) -> None:
    best = checkpoint(tmp_path, monitor=best_at(1), load_best=True)
    with pytest.warns(UserWarning, match="these weights are of epoch 1"):
        trained = fitted(PrunerCallback(replace(CONFIG, compact="auto"), compact=True), best)
    saved = torch.load(tmp_path / "params.pt", weights_only=True)
    assert trained.module_[0].out_channels == len(saved["0.weight"])


def test_early_stopping_that_keeps_weights_alone_gets_them_silenced_again() -> None:
    stopping = EarlyStopping(monitor="distance", patience=10, load_best=True)
    with pytest.warns(UserWarning, match="are from before later deaths"):
        trained = fitted(PrunerCallback(CONFIG, compact=True), Distance(2), stopping)
    assert trained.history[-1, "distance"] == EPOCHS - 2
    assert trained.pruner_.pruner.sparsity == pytest.approx(0.6, abs=0.005)
    assert trained.module_[0].out_channels < 12
    with pytest.raises(ValueError, match="keeps weights alone"):
        fitted(PrunerCallback(replace(CONFIG, compact="auto")), stopping)


def test_early_stopping_before_the_target_is_said() -> None:
    stopping = EarlyStopping(monitor="distance", patience=1)
    with pytest.warns(UserWarning, match=r"epoch 2, and the target.*are pruned, not 60\.0%"):
        trained = fitted(PrunerCallback(CONFIG), Distance(1), stopping)
    assert hooks(trained.module_) == 0


class Distance(PrunerCallback.__mro__[1]):  # type: ignore[misc]  # skorch's Callback
    """Records how far an epoch is from the one that is to be the best."""

    def __init__(self, best: int) -> None:
        self.best = best

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        net.history.record("distance", abs(len(net.history) - self.best))


def test_what_cannot_work_is_refused_with_what_to_change(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="put PrunerCallback first"):
        fitted(checkpoint(tmp_path), PrunerCallback(CONFIG))
    unsaved = checkpoint(tmp_path)
    del unsaved.f_pruner
    with pytest.raises(ValueError, match=r"f_pruner='pruner\.pt'"):
        fitted(PrunerCallback(CONFIG), unsaved)


def test_the_net_goes_on_learning_and_can_be_pickled() -> None:
    with pytest.warns(UserWarning, match="of epoch 2"):
        trained = fitted(PrunerCallback(CONFIG, compact=True), epochs=2)
    channels = trained.module_[0].out_channels
    trained.partial_fit(X, Y)
    assert trained.pruner_.pruner.epoch == EPOCHS
    assert trained.history[-1, "sparsity"] == pytest.approx(0.6, abs=0.005)
    assert trained.module_[0].out_channels <= channels
    copy = pickle.loads(pickle.dumps(trained))
    assert torch.equal(copy.forward(VALIDATION_X), trained.forward(VALIDATION_X))
    with pytest.raises(ValueError, match="this net is a copy"):
        copy.pruner_.state_dict()
