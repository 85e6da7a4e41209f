"""Observing leaves no trace in the user's graph: checkpointed and compiled networks train as without a pruner."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn import functional as F
from torch.optim import SGD, Optimizer
from torch.utils.checkpoint import checkpoint

import dpap
from dpap.anatomy.hooks import Around

CONFIGS = {
    "taylor": dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=1, observe_every=1),
    "bcm": dpap.PruningConfig.paper(target=0.5, start_epoch=0, end_epoch=1, observe_every=2),
    "operations": dpap.PruningConfig(
        target=0.5, start_epoch=0, end_epoch=1, target_of="synaptic_operations", observe_every=1
    ),
}


class Checkpointed(nn.Module):
    """Two convolutions within a checkpoint, and a layer after it."""

    def __init__(self, reentrant: bool | None, spiking: bool = False) -> None:
        super().__init__()
        self.reentrant = reentrant
        act = [dpap.spiking.LIF(threshold=0.2) for _ in range(2)] if spiking else [nn.ReLU(), nn.ReLU()]
        self.first, self.act1, self.second, self.act2 = nn.Conv2d(2, 4, 3), act[0], nn.Conv2d(4, 5, 3), act[1]
        self.last = nn.Linear(5, 3)

    def inner(self, x: Tensor) -> Tensor:
        return self.act2(self.second(self.act1(self.first(x))))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.inner(x) if self.reentrant is None else checkpoint(self.inner, x, use_reentrant=self.reentrant)
        return self.last(hidden.mean((2, 3)))


def _learn(model: nn.Module, x: Tensor, optimizer: Optimizer | None, whole: bool | None = None) -> list[Tensor]:
    model.zero_grad()
    x = x.clone().requires_grad_()
    output = model(x) if whole is None else checkpoint(model, x, use_reentrant=whole)
    output.square().sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    if optimizer is not None:
        optimizer.step()
    return gradients


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("criterion", CONFIGS)
@pytest.mark.parametrize("given", [True, False], ids=["optimizer", "none"])
def test_checkpointed_networks_have_the_gradients_and_deaths_of_others(
    reentrant: bool, criterion: str, given: bool
) -> None:
    x = torch.rand(4, 2, 7, 7)
    made = Checkpointed(None)
    found = []
    for kind in (None, reentrant):
        model = copy.deepcopy(made)
        model.reentrant = kind
        bare = copy.deepcopy(model)
        optimizer = SGD(model.parameters(), 0.1)
        pruner = dpap.Pruner(model, x, optimizer if given else None, CONFIGS[criterion])
        expected = _learn(bare, x, None)
        gradients = _learn(model, x, optimizer)
        assert all(torch.equal(one, other) for one, other in zip(gradients, expected, strict=True))
        _learn(model, x, optimizer)
        pruner.step()
        found.append(pruner.survival())
    assert found[0] == found[1] and any(None in units for units in found[0].values())


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("criterion", CONFIGS)
def test_a_network_that_is_checkpointed_whole_counts_once(reentrant: bool, criterion: str) -> None:
    x = torch.rand(4, 2, 7, 7)
    made = Checkpointed(None)
    found = []
    for whole in (None, reentrant):
        model = copy.deepcopy(made)
        optimizer = SGD(model.parameters(), 0.1)
        pruner = dpap.Pruner(model, x, optimizer, CONFIGS[criterion])
        for _ in range(3):
            _learn(model, x, optimizer, whole)
        pruner.step()
        found.append(pruner.survival())
    assert found[0] == found[1] and any(None in units for units in found[0].values())


def test_two_forwards_before_one_backward_need_no_optimizer() -> None:
    model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.rand(4, 4)
    pruner = dpap.Pruner(model, x, config=CONFIGS["taylor"])
    model(x).sum().backward()
    pruner.step()
    (model(x).sum() + model(2 * x).sum()).backward()


def _layers(depth: int) -> nn.Sequential:
    inner = [part for _ in range(depth) for part in (nn.Linear(40, 40), nn.ReLU())]
    return nn.Sequential(nn.Linear(6, 40), nn.ReLU(), *inner, nn.Linear(40, 3))


def _compile(model: nn.Module) -> Any:
    torch._dynamo.reset()
    counters.clear()
    return torch.compile(model, backend="eager")


def _graphs() -> tuple[int, int]:
    return sum(counters["graph_break"].values()), counters["stats"]["unique_graphs"]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("criterion", CONFIGS)
def test_a_compiled_network_breaks_at_its_ends_only_and_compiles_once(criterion: str) -> None:
    x, found = torch.rand(4, 6), []
    for depth in (1, 4):
        model = _layers(depth)
        plain = copy.deepcopy(model)
        optimizer = SGD(model.parameters(), 0.01)
        pruner = dpap.Pruner(model, x, optimizer, CONFIGS[criterion])
        compiled = _compile(model)
        for _ in range(5):
            loss = compiled(x).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append(_graphs())
        breaks, graphs = found[-1]
        assert breaks <= 3
        assert graphs == 1
        assert plain(x).shape == (4, 3)
        pruner.step()
        assert any(None in units for units in pruner.survival().values()) or criterion == "operations"
    assert found[0] == found[1]


@pytest.mark.usefixtures("unchecked")
def test_a_compiled_network_outlives_ten_removals(recwarn: Any) -> None:
    model, x = _layers(1), torch.rand(8, 6)
    optimizer = SGD(model.parameters(), 0.01)
    config = dpap.PruningConfig(
        target=0.7, start_epoch=0, end_epoch=10, synapses=False, deaths_per_epoch=1, observe_every=1
    )
    pruner = dpap.Pruner(model, x, optimizer, config)
    compiled = _compile(model)
    removals = 0
    for _ in range(10):
        for _ in range(2):
            optimizer.zero_grad()
            compiled(x).square().sum().backward()
            optimizer.step()
        pruner.step()
        report = pruner.compact()
        removals += report.parameters_after < report.parameters_before
        counters.clear()
        optimizer.zero_grad()
        compiled(x).square().sum().backward()
        # compiled, not given up
        assert counters["stats"]["unique_graphs"] == 1
        assert torch.equal(compiled(x), model(x))
    assert removals >= 9


def test_calls_around_a_forward_are_one_hook_and_leave_no_trace() -> None:
    model, seen = nn.Linear(2, 2), []
    one = Around(model, "before", lambda module, args, options: seen.append("one"))
    two = Around(model, "before", lambda module, args, options: seen.append("two"), first=True)
    after = Around(model, "after", lambda module, args, options, output: seen.append("after"))
    assert len(model._forward_pre_hooks) == 1
    model(torch.rand(1, 2))
    copy.deepcopy(model)(torch.rand(1, 2))
    assert seen == ["two", "one", "after"]
    for handle in (one, two, after):
        handle.remove()
        handle.remove()
    assert not (model._forward_pre_hooks or model._forward_hooks or model._forward_pre_hooks_with_kwargs)
    assert F.linear(torch.rand(1, 2), model.weight).shape == (1, 2)
