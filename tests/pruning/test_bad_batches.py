"""Batches with infinite or NaN values are left out of what is remembered; a loop that skips them goes on pruning."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

import dpap

CRITERIA = ["taylor", "bcm", "stdp", "released", "hebb", "firing_rate"]


def _start(criterion: str, **more: Any) -> tuple[nn.Module, SGD, dpap.Pruner]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 16),
        nn.ReLU(),
        nn.Linear(16, 16),
        nn.ReLU(),
        nn.Linear(16, 16),
        nn.ReLU(),
        nn.Linear(16, 3),
    )
    settings = {"target": 0.5, "start_epoch": 0, "end_epoch": 2, "deaths_per_epoch": 2, "observe_every": 2}
    config = dpap.PruningConfig(criterion=criterion, **{**settings, **more})
    optimizer = SGD(model.parameters(), 0.01, momentum=0.9)
    return model, optimizer, dpap.Pruner(model, torch.rand(4, 6), optimizer, config)


def _train(model: nn.Module, optimizer: SGD, bad: dict[int, float], skip: bool, batches: int = 6) -> None:
    for number in range(batches):
        x = torch.rand(8, 6, generator=torch.Generator().manual_seed(number))
        x[3] *= bad.get(number, 1.0)
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        if not (skip and number in bad):
            optimizer.step()


@pytest.mark.parametrize(
    ("criterion", "value"),
    [
        *((criterion, math.nan) for criterion in CRITERIA),
        ("taylor", math.inf),
        ("bcm", math.inf),
        ("bcm", 1e25),
    ],
)
def test_a_loop_that_skips_bad_batches_goes_on_as_if_they_had_not_been(criterion: str, value: float) -> None:
    model, optimizer, pruner = _start(criterion, observe_every=1)
    without = _start(criterion, observe_every=1)
    with pytest.warns(UserWarning, match="not finite") if criterion != "taylor" else _nothing():
        _train(model, optimizer, {0: value, 3: value}, skip=True)
    for number in (1, 2, 4, 5):
        without[1].zero_grad()
        x = torch.rand(8, 6, generator=torch.Generator().manual_seed(number))
        without[0](x).square().mean().backward()
        without[1].step()
    own, other = pruner.state_dict(), without[2].state_dict()
    for name, statistics in other["statistics"].items():
        for part, kept in statistics.items():
            same = torch.equal(kept, own["statistics"][name][part]) if isinstance(kept, Tensor) else True
            # what lies before the overflow was finite, and is remembered
            assert same or value == 1e25, (name, part)
            assert not isinstance(kept, Tensor) or own["statistics"][name][part].isfinite().all()
    report = pruner.step()
    assert report.left_out == (0 if criterion == "taylor" else 2)
    assert ("2 batches with infinite or NaN values left out" in str(report)) == (criterion != "taylor")
    without[2].step()
    _train(model, optimizer, {}, skip=True)
    assert pruner.step().left_out == 0 and pruner.sparsity > 0.4


class _nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *reason: Any) -> None: ...


def test_a_step_with_bad_gradients_is_left_out_and_the_next_is_taken_in_its_place() -> None:
    model, optimizer, pruner = _start("taylor", observe_every=4, deaths_per_epoch=1)
    x = torch.rand(8, 6)
    # of the first eight steps those are taken: 0 to 3, for an epoch begins with them, and 6
    for factor in (*[1.0] * 6, math.inf, 1e30, math.nan, 1.0, 1.0):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        for parameter in model.parameters():
            parameter.grad *= factor
        weights = [parameter.detach().clone() for parameter in model.parameters()]
        with pytest.warns(UserWarning, match=r"^batch 7 of this epoch") if factor == math.inf else _nothing():
            optimizer.step()
        if factor != 1.0:
            with torch.no_grad():
                for parameter, value in zip(model.parameters(), weights, strict=True):
                    parameter.copy_(value)
            optimizer.state.clear()
    statistics = pruner.state_dict()["statistics"]["0"]
    assert statistics["batches"] == 5 and statistics["units"].isfinite().all() and statistics["units"].any()
    report = pruner.step()
    assert report.left_out == 3 and report.sparsity > 0


def test_steps_that_a_gradient_scaler_skips_are_no_matter() -> None:
    model, optimizer, pruner = _start("taylor")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
    for _ in range(2):
        for _ in range(8):
            optimizer.zero_grad()
            scaler.scale(100 * model(torch.rand(8, 6)).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()
        pruner.step()
    assert scaler.get_scale() < 2.0**127 and pruner.sparsity == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("criterion", ["taylor", "bcm"])
def test_where_all_is_bad_the_error_names_layer_and_batch(criterion: str) -> None:
    model, optimizer, pruner = _start(criterion)
    model[2].register_forward_hook(lambda module, args, output: output * math.inf)
    with pytest.warns(UserWarning, match="are left out of what is remembered"):
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.rand(8, 6)).square().mean().backward()
            if criterion == "taylor":
                for parameter in model.parameters():
                    parameter.grad.nan_to_num_(math.inf)
                optimizer.step()
    with pytest.raises(
        RuntimeError, match=r"all values of .*2.* in this epoch were infinite or NaN, first in batch 1"
    ):
        pruner.step()


def test_weights_that_are_not_finite_are_named() -> None:
    model, _, pruner = _start("magnitude")
    with torch.no_grad():
        model[2].weight[3, 2] = math.nan
    with pytest.raises(ValueError, match=r"importance must be finite; that of 2's units"):
        pruner.step()


@pytest.mark.parametrize("target_of", ["synaptic_operations", "energy"])
def test_operations_of_bad_batches_are_not_counted(target_of: str) -> None:
    own, other = (_start("bcm", target_of=target_of, observe_every=1) for _ in range(2))
    with pytest.warns(UserWarning, match="not finite"):
        _train(*own[:2], {0: math.nan}, skip=True)
    for number in range(1, 6):
        other[1].zero_grad()
        other[0](torch.rand(8, 6, generator=torch.Generator().manual_seed(number))).square().mean().backward()
        other[1].step()
    counted = [pruner.state_dict()["observation"] for _, _, pruner in (own, other)]
    assert counted[0]["samples"] == counted[1]["samples"] > 0
    for name, counts in counted[1]["operations"].items():
        assert torch.equal(counts["operations"], counted[0]["operations"][name]["operations"])
        assert counted[0]["operations"][name]["magnitude"].isfinite().all()
    assert math.isfinite(own[2].step().achieved)
