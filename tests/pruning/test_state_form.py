import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import dpap
from dpap.pruning.state_form import check_form, check_index, check_operations

X = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
Change = Callable[[dict[str, Any]], object]


def begun() -> tuple[nn.Module, dpap.Pruner]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    config = dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=3, target_of="synaptic_operations")
    return model, dpap.Pruner(model, X, config=config)


@pytest.fixture(scope="module")
def saved() -> dict[str, Any]:
    model, pruner = begun()
    model(X).square().sum().backward()
    pruner.step()
    pruner.compact()
    return pruner.state_dict()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.update(epoch="2"), "it, epoch must be a number that counts; got '2'"),
        (lambda state: state.update(refused=0), "it, refused must be True or False; got 0"),
        (lambda state: state.update(epsilon={"conv": None}), "epsilon, conv must be a number; got None"),
        (lambda state: state.update(masks=[]), "masks must be values by name; got list"),
        (lambda state: state["masks"]["units"].pop("0"), "it, masks, units lacks 0"),
        (
            lambda state: state["masks"]["units"].update({"0": torch.ones(2, dtype=torch.bool)}),
            r"masks, units, 0 must have shape \(.*\); got \(2,\)",
        ),
        (
            lambda state: state["masks"]["units"].update({"0": state["masks"]["units"]["0"].long()}),
            r"masks, units, 0 must be torch.bool; got torch.int64",
        ),
        (lambda state: state["survival"]["0"].pop("units"), "survival, 0 lacks units"),
        (lambda state: state["statistics"]["0"].update(units=3), "'units' of a layer's statistics must be"),
        (lambda state: state["statistics"].update({"0": None}), "layer's statistics must hold .* got None"),
        (lambda state: state["original_index"].pop("0"), "original_index and initial_units are of other"),
        (lambda state: state["original_index"].update({"0": [1]}), "must be the numbers of units; got list"),
        (lambda state: state["original_index"]["0"].fill_(99), "holds other numbers than those of some of 8"),
        (lambda state: state["original_index"]["0"].fill_(1), "holds other numbers than those of some of 8"),
        (lambda state: state.update(initial_weights=3), "initial_weights must be values by name"),
        (
            lambda state: state.update(initial_weights={"0": 0}),
            "by initial_weights there was nothing to prune",
        ),
        (lambda state: state.update(version=torch.ones(2)), "it, version must be a number that counts"),
        (lambda state: state["dense"].pop("macs"), "dense lacks macs"),
        (lambda state: state["activity"].update(x={}), "activity has x"),
        (lambda state: state["activity"]["0"].update(x=1.0), "activity has x"),
        (lambda state: state["activity"]["0"].update(operations=torch.ones(2)), "operations must have shape"),
        (
            lambda state: state["observation"].update(samples=-1),
            "samples must be a number that counts; got -1",
        ),
        (lambda state: state["bad_batches"].update(good=3), "bad_batches, good must be a list of names"),
        (lambda state: state.update(observed=[3]), "observed must be a list of names"),
        (lambda state: state.update(alive_before={}), "alive_before lacks 0"),
    ],
)
def test_a_state_of_another_form_is_refused_in_words(
    saved: dict[str, Any], change: Change, words: str
) -> None:
    state = copy.deepcopy(saved)
    change(state)
    with pytest.raises(ValueError, match=words):
        begun()[1].load_state_dict(state)


def test_no_dict_is_no_state() -> None:
    with pytest.raises(
        ValueError, match="this is no state of a Pruner, for it must be values by name; got None"
    ):
        begun()[1].load_state_dict(None)  # type: ignore[arg-type]


def test_a_state_of_the_right_form_is_taken(saved: dict[str, Any]) -> None:
    model, pruner = begun()
    pruner.load_state_dict(saved)
    model(X).square().sum().backward()
    assert pruner.step().epoch == 1


def test_forms() -> None:
    one = torch.ones(2)
    check_form({"a": [one.double()], "b": 1} | {"more": 0}, {"b": 2}, "it")
    check_form(one.double(), one, "a tensor of another precision")
    check_form(3, 0.5, "a whole number where any may stand")
    with pytest.raises(ValueError, match="must be a tensor; got 1"):
        check_form(1, one, "it")
    with pytest.raises(ValueError, match="a tensor"):
        check_form(one.to_sparse(), one, "it")
    check_index(torch.tensor([4, 1]), 5, "it")
    check_index(torch.tensor([], dtype=torch.int64), 5, "it")
    with pytest.raises(ValueError, match="initial_units of it must be a number that counts"):
        check_index(torch.tensor([0]), 5.0, "it")
    check_operations({}, {"a": 2}, {"operations"}, "it")


WRONG = (3, -1, None, [], {}, "x", [3], {"x": 3}, {3: 3}, torch.ones(2), float("nan"))


def _places(state: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(state, dict):
        for key, value in state.items():
            yield (*path, key)
            yield from _places(value, (*path, key))


def test_whatever_stands_anywhere_in_a_state_it_is_refused_in_words_or_taken(
    saved: dict[str, Any], unchecked: None
) -> None:
    pruner, number = begun()[1], 0
    for *path, last in _places(saved):
        for wrong in WRONG:
            state = copy.deepcopy(saved)
            part = state
            for key in path:
                part = part[key]
            part[last] = wrong
            number += 1
            with contextlib.suppress(ValueError):
                pruner.load_state_dict(state)
    assert number > 300
