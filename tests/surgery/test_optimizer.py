"""All optimizers of torch go on as if the dead had never been; strange ones are refused."""

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.optim import Optimizer

from dpap.surgery import CompactionError
from dpap.surgery.optimizer import change_state, moments
from support.twins import Twin, batch, by_hand, small_network

LABELS = torch.arange(6) % 3

ELEMENTWISE: dict[str, Callable[[Iterable[Tensor]], Optimizer]] = {
    "sgd": partial(optim.SGD, lr=0.1),
    "sgd nesterov": partial(optim.SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "sgd maximize": partial(optim.SGD, lr=0.05, momentum=0.9, dampening=0.1, maximize=True),
    "adam": partial(optim.Adam, lr=0.01, amsgrad=True, weight_decay=1e-2),
    "adam maximize": partial(optim.Adam, lr=0.01, maximize=True),
    "adamw": partial(optim.AdamW, lr=0.01, amsgrad=True, foreach=True),
    "adamw fused": partial(optim.AdamW, lr=0.01, fused=True),
    "nadam": partial(optim.NAdam, lr=0.01),
    "radam": partial(optim.RAdam, lr=0.01),
    "adamax": partial(optim.Adamax, lr=0.01),
    "adadelta": partial(optim.Adadelta, lr=1.0),
    "adagrad": partial(optim.Adagrad, lr=0.01, initial_accumulator_value=0.1),
    "rmsprop": partial(optim.RMSprop, lr=0.01, centered=True, momentum=0.5),
    "rprop": partial(optim.Rprop, lr=0.01),
    "asgd": partial(optim.ASGD, lr=0.1, t0=2.0),
    "lbfgs": partial(optim.LBFGS, lr=0.1, max_iter=2, history_size=4),
    "lbfgs wolfe": partial(optim.LBFGS, max_iter=3, line_search_fn="strong_wolfe"),
}
BY_SIZE: dict[str, Callable[[Iterable[Tensor]], Optimizer]] = {
    "adafactor": partial(optim.Adafactor, lr=0.01),
    **({"muon": partial(optim.Muon, lr=0.01)} if hasattr(optim, "Muon") else {}),
}
"""Their steps depend on the sizes of the weights, so that the compact network learns at another pace."""


def _learn(model: nn.Module, optimizers: Iterable[Optimizer], steps: Iterable[int]) -> None:
    for step in steps:
        for optimizer in optimizers:

            def closure() -> Tensor:
                model.zero_grad()
                loss = F.cross_entropy(model(batch(step)), LABELS)  # noqa: B023
                loss.backward()
                return loss

            optimizer.step(closure)


def _assert_equal(twin: Twin, state: dict[str, Tensor], tolerance: float = 1e-9) -> None:
    for name, value in twin.model.state_dict().items():
        assert torch.allclose(value, state[name], rtol=tolerance, atol=tolerance), name


def test_every_optimizer_of_torch_is_tried() -> None:
    tried = {str(make.func.__name__) for make in (*ELEMENTWISE.values(), *BY_SIZE.values())}
    known = {
        name for name, one in vars(optim).items() if isinstance(one, type) and issubclass(one, Optimizer)
    }
    assert known - tried == {"Optimizer", "SparseAdam"}


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_training_goes_on_as_if_nothing_had_been_removed(kind: str) -> None:
    silent, compact = (Twin(lambda model: [ELEMENTWISE[kind](model.parameters())]) for _ in range(2))
    for twin in (silent, compact):
        _learn(twin.model, twin.optimizers, range(4))
        twin.die()
        _learn(twin.model, twin.optimizers, range(4, 7))
    kept = compact.compact()
    for twin in (silent, compact):
        _learn(twin.model, twin.optimizers, range(7, 11))
    _assert_equal(compact, by_hand(silent.model, kept))
    for parameter in compact.model.parameters():
        for _, moment in moments(compact.optimizers[0], parameter):
            assert moment.shape == parameter.shape


def _matrices(make: Callable[..., Optimizer], model: nn.Module) -> list[Optimizer]:
    matrices = [model[6].weight, model[8].weight]
    others = [one for one in model.parameters() if all(one is not matrix for matrix in matrices)]
    return [make(matrices), optim.SGD(others, 0.05, momentum=0.9)]


@pytest.mark.parametrize("kind", BY_SIZE)
def test_training_goes_on_as_in_a_network_sliced_by_hand(kind: str) -> None:
    twin = Twin(partial(_matrices, BY_SIZE[kind]))
    _learn(twin.model, twin.optimizers, range(3))
    twin.die(synapses=False)
    _learn(twin.model, twin.optimizers, range(3, 5))
    weights, state = copy.deepcopy((twin.model, twin.optimizers[0].state_dict()))
    kept = twin.compact()
    for index, name in enumerate(("6", "8")):
        for key, value in state["state"][index].items():
            if value.ndim == 2:
                whole = weights[int(name)].weight.shape
                if name in kept.units:
                    rows = kept.units[name]
                    # a mean over rows, of which the dead are zero
                    value = value[rows] if len(value) > 1 else value * whole[0] / len(rows)
                columns = kept.features[name]
                value = value[:, columns] if value.shape[1] > 1 else value * whole[1] / len(columns)
            state["state"][index][key] = value
    small, left = small_network(), by_hand(weights, kept)
    for name, tensor in (*small.named_parameters(), *small.named_buffers()):
        tensor.data = left[name].clone()
    optimizer = _matrices(BY_SIZE[kind], small)[0]
    optimizer.load_state_dict(state)
    _learn(twin.model, twin.optimizers[:1], range(5, 8))
    _learn(small, [optimizer], range(5, 8))
    assert not torch.equal(small[6].weight, left["6.weight"])
    _assert_equal(twin, small.state_dict())


class Strange(optim.SGD):
    """An optimizer that keeps some extra state of each parameter."""

    def __init__(self, parameters: Iterable[Tensor], keep: Callable[[Tensor], Any]) -> None:
        super().__init__(parameters, 0.1)
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["strange"] = keep(parameter)


@pytest.mark.parametrize(
    "keep",
    [
        lambda parameter: torch.zeros(parameter.numel() + 1),
        lambda parameter: torch.zeros(len(parameter), len(parameter)),
        lambda parameter: [torch.zeros_like(parameter)],
        lambda parameter: {"left": {"factor": torch.zeros(len(parameter), 2)}},
        lambda parameter: object(),
    ],
    ids=["flat", "matrix", "list", "nested", "object"],
)
def test_state_that_is_not_understood_is_refused_before_anything_changes(keep: Callable[..., Any]) -> None:
    twin = Twin(lambda model: [Strange(model.parameters(), keep)])
    twin.die()
    before = copy.deepcopy(twin.model.state_dict())
    with pytest.raises(CompactionError, match=r"Strange keeps 'strange' .*optimizer\.state\.clear\(\)"):
        twin.compact()
    _assert_equal(twin, before, 0.0)
    twin.optimizers[0].state.clear()
    assert twin.compact().units


def test_numbers_of_any_kind_stay() -> None:
    numbers = {"step": 3, "mode": "slow", "scales": [1.0, torch.ones(1)], "none": None}
    twin = Twin(lambda model: [Strange(model.parameters(), lambda parameter: numbers)])
    twin.die()
    twin.compact()
    assert all(state["strange"] is numbers for state in twin.optimizers[0].state.values())


def test_groups_and_optimizers_on_parts_all_follow() -> None:
    def make(model: nn.Module) -> list[Optimizer]:
        groups = [
            {"params": model[:3].parameters(), "lr": 0.02},
            {"params": model[3:5].parameters(), "weight_decay": 0.1},
        ]
        return [optim.AdamW(groups, 0.01), optim.SGD(model[6:].parameters(), 0.1, momentum=0.9)]

    silent, compact = Twin(make), Twin(make)
    for twin in (silent, compact):
        _learn(twin.model, twin.optimizers, range(3))
        twin.die()
    kept = compact.compact()
    for twin in (silent, compact):
        _learn(twin.model, twin.optimizers, range(3, 6))
    _assert_equal(compact, by_hand(silent.model, kept))


@pytest.mark.parametrize(("shape", "axis"), [((6, 5), 0), ((6, 5), 1), ((6, 4, 3, 3), 0), ((6, 4, 3, 3), 1)])
def test_means_over_the_dead_become_means_of_what_remains(shape: tuple[int, ...], axis: int) -> None:
    """The factored second moments of Adafactor are those that it would have made of what remains alone."""
    generator = torch.Generator().manual_seed(0)
    squares = torch.rand(shape, generator=generator, dtype=torch.float64)
    kept = torch.tensor([0, 2, 3])
    dead = torch.ones(shape[axis], dtype=torch.bool)
    dead[kept] = False
    squares.movedim(axis, 0)[dead] = 0
    parameter = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    optimizer = torch.optim.Adafactor([parameter])
    optimizer.state[parameter] = {
        "row_var": squares.mean(-1, keepdim=True),
        "col_var": squares.mean(-2, keepdim=True),
    }
    undo = change_state(
        optimizer,
        parameter,
        lambda one: one if one.shape[axis] != shape[axis] else one.index_select(axis, kept),
    )
    left = squares.index_select(axis, kept)
    state = optimizer.state[parameter]
    torch.testing.assert_close(state["row_var"], left.mean(-1, keepdim=True))
    torch.testing.assert_close(state["col_var"], left.mean(-2, keepdim=True))
    undo()
    torch.testing.assert_close(optimizer.state[parameter]["row_var"], squares.mean(-1, keepdim=True))
