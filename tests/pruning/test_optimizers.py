"""Optimizers that were not given, and networks with two pruners."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

import dpap


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def _config(**more: Any) -> dpap.PruningConfig:
    return dpap.PruningConfig(**{"target": 0.5, "start_epoch": 0, "end_epoch": 1, "synapses": False, **more})


def _learn(model: nn.Module, *optimizers: Optimizer, steps: int = 3) -> None:
    model.train()
    for _ in range(steps):
        model.zero_grad()
        model(torch.rand(8, 6)).square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()


def _dead(pruner: dpap.Pruner) -> Tensor:
    return torch.tensor([value is None for value in pruner.survival()["0"]])


OPTIMIZERS = {
    "momentum": lambda parameters: SGD(parameters, 0.1, momentum=0.9),
    "adam": lambda parameters: Adam(parameters, 0.1),
    "decay": lambda parameters: AdamW(parameters, 0.1, amsgrad=True, weight_decay=0.1),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_optimizer_that_was_not_given_keeps_the_dead_dead_and_survives_a_removal(kind: str) -> None:
    model = _network()
    optimizer = OPTIMIZERS[kind](model.parameters())
    pruner = dpap.Pruner(model, torch.rand(4, 6), config=_config())
    _learn(model, optimizer)
    pruner.step()
    dead = _dead(pruner)
    assert dead.any()
    for _ in range(3):
        _learn(model, optimizer, steps=1)
        assert not model[0].weight[dead].any() and not model[1].weight[dead].any()
    pruner.compact()
    state = optimizer.state[model[0].weight].values()
    assert {moment.shape for moment in state if moment.ndim} == {(int((~dead).sum()), 6)}
    _learn(model, optimizer)


def test_an_optimizer_that_changes_the_dead_is_named_once() -> None:
    model = _network()
    given, other = SGD(model.parameters(), 0.1), Adam(model.parameters(), 0.1)
    pruner = dpap.Pruner(model, torch.rand(4, 6), given, _config())
    pruner.detach()
    _learn(model, given, other)  # it has moments from before
    pruner = dpap.Pruner(model, torch.rand(4, 6), given, _config())
    _learn(model, given)
    pruner.step()
    dead = _dead(pruner)
    with pytest.warns(
        UserWarning, match=r"^Adam was not given to Pruner and changed \d+ dead weights"
    ) as seen:
        _learn(model, given, other)
    assert len(seen) == 1
    assert dead.any() and not model[0].weight[dead].any()
    assert not other.state[model[0].weight]["exp_avg"][dead].any()
    pruner.compact()
    _learn(model, given, other)


def test_where_nothing_was_observed_the_optimizer_that_trains_is_named() -> None:
    model = _network()
    pruner = dpap.Pruner(model, torch.rand(4, 6), SGD(model.parameters(), 0.1), _config())
    anew = AdamW(model.parameters(), 0.1)  # as for a second phase of training
    _learn(model, anew)
    with pytest.raises(RuntimeError, match=r"no gradient .*; AdamW steps its parameters and was not given"):
        pruner.step()


def test_an_optimizer_of_another_network_is_left_alone() -> None:
    model, critic = _network(), _network()
    given, other = SGD(model.parameters(), 0.1), Adam(critic.parameters(), 0.1)
    pruner = dpap.Pruner(model, torch.rand(4, 6), given, _config())
    _learn(model, given)
    _learn(critic, other)
    assert list(pruner._optimizers) == [given]
    with pytest.raises(ValueError, match="Adam holds no parameter of this network"):
        dpap.Pruner(_network(), torch.rand(4, 6), other)


def test_state_of_removed_units_is_refused_in_words() -> None:
    model = _network()
    optimizer = Adam(model.parameters(), 0.1)
    _learn(model, optimizer)
    pruner = dpap.Pruner(model, torch.rand(4, 6), config=_config(criterion="magnitude"))
    pruner.step()
    pruner.compact()
    with pytest.raises(RuntimeError, match=r"Adam was not given to Pruner.* optimizer\.state\.clear\(\)"):
        _learn(model, optimizer)
    optimizer.state.clear()
    _learn(model, optimizer)


def test_detached_or_forgotten_nothing_watches_optimizers() -> None:
    from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

    before = len(_global_optimizer_pre_hooks), len(_global_optimizer_post_hooks)
    pruner = dpap.Pruner(_network(), torch.rand(4, 6), config=_config())
    assert len(_global_optimizer_post_hooks) == max(before[1], 1)
    pruner.detach()
    assert (len(_global_optimizer_pre_hooks), len(_global_optimizer_post_hooks)) == before


def test_several_forwards_before_one_backward_are_left_alone() -> None:
    model = _network()
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    pruner = dpap.Pruner(model, torch.rand(4, 6), config=_config())
    _learn(model, optimizer)
    pruner.step()
    for _ in range(2):
        loss = model(torch.rand(8, 6)).sum() + model(torch.rand(8, 6)).square().sum()
        loss.backward()
        optimizer.step()
    assert not model[0].weight[_dead(pruner)].any()


@pytest.mark.parametrize("part", ["whole", "inside", "around", "wrapped"])
def test_a_second_pruner_is_refused_with_both_ways_out(part: str) -> None:
    model = _network()
    first = dpap.Pruner(model, torch.rand(4, 6), config=_config())
    second = {
        "whole": model,
        "inside": model[:2],
        "around": nn.Sequential(model, nn.Linear(3, 2)),
        "wrapped": nn.DataParallel(model),
    }[part]
    with pytest.raises(
        ValueError, match=r"has a Pruner already.*go on with that one, or call its detach\(\)"
    ):
        dpap.Pruner(second, torch.rand(4, 6))
    with pytest.raises(ValueError, match=r"has a Pruner already.*load_state_dict"):
        dpap.load_state(model, _network().state_dict())
    _learn(model)
    first.step()
    first.detach()
    dpap.Pruner(model, torch.rand(4, 6), config=_config()).detach()
