"""Which features still receive something, against the rule written out feature by feature."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from dpap.anatomy.staining.codes import MIXED, NO_UNIT
from dpap.anatomy.wiring import receiving

UNITS = {"a": 3, "b": 2, "c": 4}


@st.composite
def cases(draw):
    features = draw(st.integers(0, 6))
    sources = draw(st.lists(st.sampled_from(sorted(UNITS)), unique=True))
    feeds, gates, alive = {}, {}, {}
    for name in sources:
        unit = st.integers(MIXED, UNITS[name] - 1)
        feeds[name] = torch.tensor(
            draw(st.lists(unit, min_size=features, max_size=features)), dtype=torch.int64
        )
        if draw(st.booleans()):
            gate = draw(st.lists(st.booleans(), min_size=features, max_size=features))
            gates[name] = torch.tensor(gate, dtype=torch.bool)
    for name, units in UNITS.items():
        if draw(st.booleans()):
            alive[name] = torch.tensor(draw(st.lists(st.booleans(), min_size=units, max_size=units)))
    return feeds, alive, features, gates


def receives(feature, feeds, alive, gates):
    fed, fed_alive = False, False
    for source, units in feeds.items():
        unit = int(units[feature])
        if unit == NO_UNIT:
            continue
        fed = True
        dead = source in alive and unit != MIXED and not alive[source][unit]
        fed_alive |= not dead
        if dead and source in gates and gates[source][feature]:
            return False
    return fed_alive or not fed


@given(cases())
def test_of_any_feeds(case):
    feeds, alive, features, gates = case
    expected = [receives(feature, feeds, alive, gates) for feature in range(features)]
    assert receiving(feeds, alive, features, gates).tolist() == expected
