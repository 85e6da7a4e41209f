"""What comparisons hide from the dye is seen by perturbing units: nothing that depends on a unit is missed."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import dpap
from dpap.anatomy import Wiring, find_wiring
from dpap.anatomy.staining.codes import MIXED
from dpap.anatomy.staining.emissions import Perturbation
from dpap.anatomy.staining.perturb import NumericLook, _showing
from dpap.surgery import Masks
from dpap.surgery.compact import remove_dead
from dpap.surgery.trial import try_removal
from support.cases import EarlyExit


class Between(nn.Module):
    """Two layers with a function between."""

    def __init__(
        self, function: Callable[[Tensor], Tensor], units: int = 12, features: int | None = None
    ) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, units), nn.Linear(features or units, 10)
        self.head = nn.Linear(10, 3)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.two(self.function(self.one(x)))))


def _top(x: Tensor) -> Tensor:
    return x * (x >= x.topk(4, -1).values[..., -1:])


def _winner(x: Tensor) -> Tensor:
    return torch.zeros_like(x).scatter(-1, x.argmax(-1, keepdim=True), 1.0)


def _median(x: Tensor) -> Tensor:
    return torch.where(x > x.nanmedian(-1, keepdim=True).values, 1.0, 0.0)


def _code(x: Tensor) -> Tensor:
    return nn.functional.one_hot(x.argmax(-1), 5).float()


ELEMENTWISE = {
    "spikes": lambda x: (x > 1).float(),
    "sign": lambda x: (x > 0).float() - (x < 0).float(),
    "where": lambda x: torch.where(x > 0.2, torch.ones_like(x), torch.zeros_like(x)),
    "where with values": lambda x: torch.where(x > 0.2, x, torch.zeros_like(x)),
    "masked": lambda x: x.masked_fill(~(x > 0.1), 0.0),
    "heaviside": lambda x: torch.heaviside(x - 1, torch.zeros(())),
    "integers": lambda x: torch.nan_to_num(x).round().int().float(),
    "numbers": lambda x: torch.tensor([[float(v > 0.5) for v in row] for row in x.tolist()]),
    "flipped": lambda x: (x > 1).float().flip(-1),
}
MIXING = {"top": _top, "winner": _winner, "median": _median}


def _wire(model: nn.Module, x: Tensor) -> Wiring:
    wiring = find_wiring(model, (x,))
    try_removal(model, wiring, (x,))
    return wiring


def _remove_every_second(model: nn.Module, wiring: Wiring, x: Tensor) -> float:
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    for alive in masks.units.values():
        alive[::2] = False
    dpap.surgery.silence.impose(model, wiring, masks, ())
    new = torch.randn(32, 6) * 5
    before = model(new)
    remove_dead(model, wiring, masks, (), (x,))
    return float((model(new) - before).detach().abs().max())


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_function_of_each_unit_is_mapped(name: str) -> None:
    torch.manual_seed(0)
    model, x = Between(ELEMENTWISE[name]), torch.randn(3, 6)
    wiring = _wire(model, x)
    order = torch.arange(12)
    assert (
        wiring.layers["two"].feeds["one"].tolist() == (order.flip(0) if name == "flipped" else order).tolist()
    )
    assert wiring.layers["one"].prunability == "prunable"
    assert _remove_every_second(model, wiring, x) < 1e-5
    assert model.two.in_features == model.one.out_features == 6


@pytest.mark.parametrize("name", MIXING)
def test_units_that_compete_are_mixed(name: str) -> None:
    torch.manual_seed(0)
    model, x = Between(MIXING[name]), torch.randn(3, 6)
    wiring = _wire(model, x)
    assert (wiring.layers["two"].feeds["one"] == MIXED).any()
    assert wiring.layers["one"].prunability in ("silenced", "whole")
    assert wiring.layers["one"].reason
    assert wiring.layers["two"].prunability == "prunable"
    _remove_every_second(model, wiring, x)
    assert model.one.out_features == 12


def test_units_that_only_choose_a_code_stay() -> None:
    torch.manual_seed(0)
    wiring = _wire(Between(_code, units=5, features=5), torch.randn(8, 6))
    assert "one" in wiring.layers["two"].feeds
    assert not wiring.layers["one"].removable


def test_an_unseen_spike_function_in_convolutions_and_over_time() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.norm = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
            self.conv2, self.head = nn.Conv2d(6, 7, 3), nn.Linear(7 * 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            membrane, total = torch.zeros(()), torch.zeros(())
            for _ in range(3):
                membrane = 0.5 * membrane + self.norm(self.conv1(x))
                spikes = (membrane > 0.5).float()
                membrane = membrane * (1 - spikes)
                total = total + self.head((self.conv2(spikes) > 0).float().flatten(1))
            return total

    torch.manual_seed(0)
    wiring = _wire(Steps(), torch.randn(2, 2, 4, 4))
    assert wiring.layers["conv2"].feeds["conv1"].tolist() == list(range(6))
    assert wiring.layers["head"].feeds["conv2"].tolist() == [unit for unit in range(7) for _ in range(4)]
    assert {name for name, layer in wiring.layers.items() if layer.prunability == "prunable"} == {
        "conv1",
        "conv2",
    }


def test_a_hard_gate_is_found_beside_what_it_gates() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value, self.gate, self.head = nn.Linear(6, 12), nn.Linear(6, 12), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.value(x)) * (self.gate(x) > 0))

    torch.manual_seed(0)
    model, x = Gate(), torch.randn(3, 6)
    wiring = _wire(model, x)
    assert set(wiring.layers["head"].feeds) == {"value", "gate"}
    assert wiring.layers["head"].feeds["gate"].tolist() == list(range(12))
    assert _remove_every_second(model, wiring, x) < 1e-5


def test_units_that_decide_a_branch_together_stay() -> None:
    torch.manual_seed(0)
    model, x = EarlyExit(), torch.rand(4, 6)
    examples = [x, 100 * x]
    wiring = find_wiring(model, examples)
    try_removal(model, wiring, examples)
    # of half as many units the mean is twice as large
    assert wiring.layers["stem"].prunability == "silenced"
    assert "decide together what runs" in wiring.layers["stem"].reason
    assert wiring.layers["early"].feeds["stem"].tolist() == list(range(12))
    assert wiring.layers["deep"].prunability == "prunable"


def test_hidden_units_in_an_integer_output_are_output() -> None:
    class Returns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.head = nn.Linear(6, 12), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = torch.relu(self.one(x))
            return self.head(hidden), hidden.argmax(-1)

    wiring = _wire(Returns(), torch.randn(4, 6))
    assert wiring.layers["one"].reason == "its units reach the network's output, beside what they feed (head)"


def test_a_network_without_comparisons_has_no_more_feeds() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    model = nn.Sequential(
        nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
    )
    before = torch.get_rng_state()
    wiring = find_wiring(model, (torch.ones(2, 6),))
    assert torch.equal(torch.get_rng_state(), before) and not torch.equal(before, state)
    assert {name: sorted(layer.feeds) for name, layer in wiring.layers.items()} == {
        "0": ["<input>"],
        "3": ["0"],
        "5": ["3"],
    }
    assert wiring.layers["3"].prunability == "prunable"


def test_few_passes_show_every_path() -> None:
    import random

    sources = [f"layer{number}" for number in range(40)]
    known = {frozenset({source}) for source in sources} | {frozenset(sources[:20]), frozenset()}
    missing = {each: frozenset(sources) - each for each in known}
    passes = list(_showing(sources, missing, random.Random(0)))
    for each, those in missing.items():
        for source in those:
            assert any(source in chosen and not chosen & each for chosen in passes)
    assert len(passes) <= 16


class Dense(nn.Module):
    """Every layer reads the outputs of all before it; one more reads a function of what `layers.1` emits."""

    def __init__(self, layers: int, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4 * (number + 1), 4) for number in range(layers))
        self.hidden, self.head = nn.Linear(4, 6), nn.Linear(6 + 4 * (layers + 1), 3)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, torch.relu(layer(x))], -1)
        hidden = torch.relu(self.hidden(self.function(x[..., 8:12])))
        return self.head(torch.cat([hidden, x], -1))


def test_what_ran_later_is_not_tried_and_what_ran_before_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = 0
    difference = NumericLook._difference

    def counted(self: NumericLook, perturbation: Perturbation) -> object:
        nonlocal passes
        passes += 1
        return difference(self, perturbation)

    monkeypatch.setattr(NumericLook, "_difference", counted)
    torch.manual_seed(0)
    plain = find_wiring(Dense(10, torch.tanh), (torch.rand(5, 4),))
    assert passes <= 8  # one for every layer would be 10 more
    decided = find_wiring(Dense(10, _winner), (torch.rand(5, 4),))
    assert set(plain.layers["hidden"].feeds) == set(decided.layers["hidden"].feeds) == {"layers.1"}


class Twice(nn.Module):
    """A layer that runs again after one that only decides for it: what ran later moves what ran before."""

    def __init__(self) -> None:
        super().__init__()
        self.again, self.later, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = torch.relu(self.again(x))
        return self.head(torch.relu(self.again(_winner(self.later(first)))))


def test_a_layer_that_runs_twice_may_be_moved_by_what_ran_after_its_first_call() -> None:
    torch.manual_seed(0)
    wiring = find_wiring(Twice(), (torch.rand(5, 6),))
    assert "later" in wiring.layers["again"].feeds
