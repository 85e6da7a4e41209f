"""State that a network keeps by itself is found, and every look begins from where there was none yet."""

from collections.abc import Callable
from copy import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dpap
from dpap.anatomy.at_rest import states_at_rest
from dpap.anatomy.hidden_state import preserved_state, reset_state


class Leaky(nn.Module):
    """A hand-written neuron that nobody registered, with a membrane in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.membrane: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.membrane = x if self.membrane is None else 0.8 * self.membrane + x
        return self.membrane.relu()


class Unnamed(nn.Module):
    """It is in no attribute before the first forward."""

    def forward(self, x: Tensor) -> Tensor:
        self.membrane = x + 0.8 * getattr(self, "membrane", 0.0)
        return self.membrane.relu()


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.past: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.past.append(x)
        return torch.stack(self.past[-2:]).sum(0).relu()


class Buffered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("membrane", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.membrane = 0.8 * self.membrane + x
        return self.membrane.relu()


class Initialised(nn.Module):
    """What is made at the first forward and stays is no state."""

    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.mean is None:
            self.mean = x.mean(0)
        return (x - self.mean).relu()


class Recurrent(nn.Module):
    """A block whose state is as wide as its units, and begins with zeros of a fixed width."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.back, self.leave = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.h: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.h is None:
            self.h = torch.zeros(len(x), 8)
        self.h = (self.enter(x) + self.back(self.h)).relu()
        return self.leave(self.h)


BEGINS: dict[type[nn.Module], tuple[str, Any]] = {
    Leaky: ("membrane", None),
    Unnamed: ("membrane", 0.0),
    Listed: ("past", []),
    Buffered: ("membrane", torch.zeros(1)),
}
"""Attribute that holds the state, and what it begins with."""


def network(neuron: Callable[[], nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), neuron(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize("neuron", BEGINS)
def test_state_is_found_and_reset_to_where_it_began(neuron: type[nn.Module]) -> None:
    model, x, name = network(neuron), torch.randn(4, 6), BEGINS[neuron][0]
    rest, carries = states_at_rest(model, (x,))
    assert carries and [(one.owner, one.name) for one in rest] == [(model[1], name)]
    with torch.no_grad():
        expected = model(x)
        model(x)
        with pytest.raises(RuntimeError, match="size"):  # the state is that of another batch
            model(x[:3])
        left = getattr(model[1], name)
        with preserved_state(model, rest):
            assert torch.equal(model(x[:3]), expected[:3])
            reset_state(model)
            assert torch.equal(model(x), expected)
    assert getattr(model[1], name) is left


def test_what_is_made_once_is_no_state() -> None:
    assert states_at_rest(network(Initialised), (torch.randn(4, 6),)) == ([], False)


def test_dropout_in_evaluation_mode_is_no_state() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(x, 0.5)

    assert states_at_rest(network(Noisy), (torch.randn(4, 6),)) == ([], False)


@pytest.mark.parametrize("neuron", BEGINS)
def test_state_of_another_batch_stands_in_the_way_of_no_check(neuron: type[nn.Module]) -> None:
    model, x = network(neuron), torch.randn(20, 6)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    config = dpap.PruningConfig(target=0.6, start_epoch=0, end_epoch=2, synapses=False)
    pruner = dpap.Pruner(model, x[:4], optimizer, config)
    name, begin = BEGINS[neuron]
    for _ in range(2):
        # the user resets before a sequence, and what the last one left stays
        setattr(model[1], name, copy(begin))
        optimizer.zero_grad()
        (model(x) + model(x)).square().mean().backward()
        optimizer.step()
        assert pruner.step().sparsity > 0
    report = pruner.compact()
    assert not report.staying and report.parameters_after < report.parameters_before


def test_units_of_a_hand_written_recurrent_block_stay_where_the_next_timestep_would_fail() -> None:
    torch.manual_seed(0)
    model, x = Recurrent(), torch.randn(4, 6)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    config = dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=1, synapses=False)
    pruner = dpap.Pruner(model, x, optimizer, config)
    assert {pruner.wiring.layers[name].prunability for name in ("enter", "back")} == {"silenced"}
    (model(x) + model(x)).square().mean().backward()
    optimizer.step()
    assert pruner.step().sparsity > 0
    model.h = None
    expected = [model(x) for _ in range(3)]
    pruner.compact()
    model.h = None
    assert all(torch.equal(model(x), each) for each in expected)
