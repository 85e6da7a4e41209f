"""Which units can be removed: dead ones that are joined with dead ones only."""

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dpap.anatomy import find_wiring
from dpap.surgery import Masks
from dpap.surgery.masks import feature_stays
from support.networks import Residual

WIRING = find_wiring(Residual(), (torch.rand(2, 2, 4, 4),))


@given(st.lists(st.booleans(), min_size=17, max_size=17))
@settings(max_examples=50)
def test_added_units_leave_exactly_when_both_are_dead(draw: list[bool]) -> None:
    masks = Masks.all_alive(WIRING, synapses=False, timesteps=False)
    alive = torch.tensor(draw)
    for name, start in (("stem", 0), ("outer", 6), ("inner", 12)):
        masks.units[name] = alive[start : start + len(masks.units[name])]
    both = ~masks.units["stem"] & ~masks.units["outer"]
    assume(not both.all() and masks.units["inner"].any())
    leaving = masks.removable(WIRING)
    assert torch.equal(leaving["stem"], both) and torch.equal(leaving["outer"], both)
    assert torch.equal(leaving["inner"], ~masks.units["inner"])


def test_a_layer_of_the_dead_keeps_one() -> None:
    masks = Masks.all_alive(WIRING, synapses=False, timesteps=False)
    for alive in masks.units.values():
        alive[:] = False
    left = {name: int((~leaving).sum()) for name, leaving in masks.removable(WIRING).items()}
    assert left["stem"] == left["outer"] == left["inner"] == 1


def test_features_that_no_unit_feeds_stay() -> None:
    assert feature_stays({}, {}) is None
    feeds = {"a": torch.tensor([0, 1, -1, -2])}
    assert feature_stays(feeds, {"a": torch.tensor([True, False])}).tolist() == [False, True, True, True]
    assert feature_stays(feeds, {}).tolist() == [True, True, True, True]


def test_keeping_drops_the_rest_of_every_kind() -> None:
    masks = Masks(
        {"a": torch.tensor([True, False, True])},
        {"a": torch.tensor([[True, False], [False, True], [True, True]])},
        {"a": torch.tensor([[True, True, False]])},
    )
    masks.keep("a", torch.tensor([0, 2]), torch.tensor([1]))
    assert masks.units["a"].tolist() == [True, True]
    assert masks.synapses["a"].tolist() == [[False], [True]]
    assert masks.timesteps["a"].tolist() == [[True, False]]
