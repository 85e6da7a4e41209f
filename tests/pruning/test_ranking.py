"""Importances over the whole network: one ranking, per what a death saves."""

import torch

from dpap.plasticity import CRITERIA
from dpap.pruning.config import PruningConfig
from dpap.pruning.ranking import importances, over_network, within_layers
from dpap.pruning.savings import Savings
from support.context import context

ALIVE = {
    "a": {"units": torch.tensor([True, True, False])},
    "b": {"units": torch.tensor([True, True]), "synapses": torch.tensor([[True, True], [True, False]])},
}
FOUND = {
    "a": {"units": torch.tensor([8.0, 1.0, 99.0])},
    "b": {"units": torch.tensor([6.0, 0.0]), "synapses": torch.tensor([[3.0, 0.5], [0.0, 7.0]])},
}
SAVED = Savings(
    {"a": torch.tensor([2.0, 2.0, 2.0]).double(), "b": torch.tensor([3.0, 3.0]).double()},
    {"b": torch.tensor([1.0, 1.0]).double()},
)


def test_units_and_synapses_of_all_layers_are_ranked_by_importance_for_what_they_save() -> None:
    ranks = over_network(FOUND, ALIVE, SAVED)
    worth = {
        ("a", "units", 0): 4.0,
        ("a", "units", 1): 0.5,
        ("b", "units", 0): 2.0,
        ("b", "units", 1): 1e-30 / 3,
        ("b", "synapses", 0): 3.0,
        ("b", "synapses", 1): 0.5,
        ("b", "synapses", 2): 1e-30,
    }  # fmt: skip; of what is of no importance at all that goes first which saves most
    values = sorted(worth.values())
    for (name, part, index), value in worth.items():
        places = [place for place, other in enumerate(values) if other == value]
        expected = sum(places) / len(places) / (len(values) - 1)
        assert ranks[name][part].flatten()[index].item() == torch.tensor(expected).float().item(), (
            name,
            part,
        )
    assert ranks["a"]["units"][2] == 0 and ranks["b"]["synapses"][1, 1] == 0  # the dead


def test_a_factor_on_all_importances_changes_nothing() -> None:
    scaled = {name: {part: 1e-6 * value for part, value in parts.items()} for name, parts in FOUND.items()}
    one, other = over_network(FOUND, ALIVE, SAVED), over_network(scaled, ALIVE, SAVED)
    assert all(torch.equal(one[name][part], other[name][part]) for name in one for part in one[name])


def test_timesteps_are_ranked_over_all_layers_by_themselves() -> None:
    found = {
        "a": {"units": torch.tensor([1.0]), "timesteps": torch.tensor([[5.0], [1.0]])},
        "b": {"units": torch.tensor([2.0]), "timesteps": torch.tensor([[0.0], [3.0]])},
    }
    alive = {name: {part: value > -1 for part, value in parts.items()} for name, parts in found.items()}
    saved = Savings({name: torch.ones(1).double() for name in found}, {})
    ranks = over_network(found, alive, saved)
    assert torch.allclose(ranks["a"]["timesteps"], torch.tensor([[1.0], [1 / 3]]))
    assert torch.allclose(ranks["b"]["timesteps"], torch.tensor([[0.0], [2 / 3]]))


def test_within_layers_each_is_mapped_by_itself_as_configured() -> None:
    by_rank = within_layers(FOUND, ALIVE, PruningConfig.paper())
    assert by_rank["a"]["units"].tolist() == [1, 0, 0]
    linear = within_layers(FOUND, ALIVE, PruningConfig.paper(normalisation="linear", clip=1.0))
    assert torch.allclose(linear["b"]["synapses"], torch.tensor([[1.0, 1 / 6], [0.0, 0.0]]))


def test_the_criterion_gives_what_is_asked_for() -> None:
    statistics = CRITERIA["taylor"].blank(3, 4, synapses=True)
    statistics.units += torch.tensor([1.0, 2.0, 3.0])
    found = importances(
        {"fc": context(statistics)}, {"fc": {"units": torch.ones(3, dtype=torch.bool)}}, "taylor"
    )
    assert found["fc"].keys() == {"units"} and found["fc"]["units"].tolist() == [1, 2, 3]
