"""Units are told apart where all sources are dyed at once: beside one pass a unit."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dpap.anatomy.staining.codes import MIXED, NO_UNIT
from dpap.anatomy.staining.decoding import Decoded, apart, decode_units
from dpap.anatomy.staining.dye import Dyer, Pass, Reach, Site


class Stream(nn.Module):
    """Blocks that add to a stream, or to a shuffled, rolled, normed or concatenated one."""

    def __init__(self, width: int, joins: list[str]) -> None:
        super().__init__()
        self.joins = joins
        self.stem = nn.Linear(3, width)
        self.blocks = nn.ModuleList()
        for join in joins:
            self.blocks.append(nn.Linear(width, width))
            width *= 2 if join == "concatenated" else 1
        self.norms = nn.ModuleList(nn.LayerNorm(block.out_features) for block in self.blocks)
        self.head = nn.Linear(width, 2)

    def forward(self, given: Tensor) -> Tensor:
        stream = self.stem(given)
        for block, norm, join in zip(self.blocks, self.norms, self.joins, strict=True):
            made = block(stream.relu())
            if join == "concatenated":
                stream = torch.cat([made, stream], -1)
                continue
            if join == "shuffled":
                stream = stream.view(-1, 2, stream.shape[-1] // 2).transpose(1, 2).flatten(1)
            elif join == "rolled":
                made = made.roll(1, -1)
            elif join == "normed":
                made = norm(made)
            stream = stream + made
        return self.head(stream)


@contextmanager
def ready(
    model: nn.Module, example: Tensor
) -> Iterator[tuple[Dyer, dict[str, int], dict[str, dict[Site, Reach]]]]:
    dyer = Dyer(model, (example,))
    with dyer.ready(training_paths=False):
        dyer.observe()
        units = {
            name: layer.out_features for name, layer in dyer.layers.items() if isinstance(layer, nn.Linear)
        }
        yield (
            dyer,
            units,
            {name: _dyed(dyer, name, torch.ones(count).bool()) for name, count in units.items()},
        )


def _dyed(dyer: Dyer, source: str, which: Tensor) -> dict[Site, Reach]:
    found = dyer.run(Pass(dye={source: which})).found
    return {site: reach for site, reach in found.items() if any(bool(each.any()) for each in reach.values())}


def _one_by_one(dyer: Dyer, source: str, count: int, site: Site) -> Tensor:
    """Which unit feeds each feature of a weight layer, by one pass a unit."""
    by_unit = [_dyed(dyer, source, torch.arange(count) == unit).get(site) for unit in range(count)]
    features = dyer.shapes[site][-1]
    dyed = torch.stack([torch.zeros(features).bool() if each is None else each[-1] for each in by_unit])
    fed = torch.where(dyed.sum(0) == 1, dyed.int().argmax(0), MIXED)
    return torch.where(dyed.any(0), fed, NO_UNIT)


@given(
    width=st.sampled_from([2, 4, 6]),
    joins=st.lists(
        st.sampled_from(["plain", "shuffled", "rolled", "normed", "concatenated"]), min_size=1, max_size=4
    ),
)
@settings(max_examples=25, deadline=None)
def test_units_are_those_of_one_pass_each(width: int, joins: list[str]) -> None:
    torch.manual_seed(0)
    with ready(Stream(width, joins), torch.rand(2, 3)) as (dyer, units, reach):
        decoded = decode_units(dyer, units, reach)
        feeds, _ = decoded.feature_axes(dyer)
        for source, count in units.items():
            for reader in units.keys() & {site.module for site in reach[source]}:
                expected = _one_by_one(dyer, source, count, Site(reader))
                assert torch.equal(feeds[Site(reader)][source], expected), (source, reader)


@pytest.mark.parametrize(("join", "more"), [("plain", 0), ("shuffled", 100)])
def test_sources_that_meet_unit_by_unit_are_decoded_at_once(join: str, more: int) -> None:
    """Twelve blocks along a stream take the passes of one; a shuffle on the way takes groups that do not meet."""
    with ready(Stream(6, [join] * 12), torch.rand(2, 3)) as (dyer, units, reach):
        passes = 0
        run = dyer.run

        def counted(now: Pass) -> Pass:
            nonlocal passes
            passes += 1
            return run(now)

        dyer.run = counted  # type: ignore[method-assign, assignment]
        decoded = decode_units(dyer, units, reach)
    bits = 4  # the shortest code of 6 units
    assert passes == 1 + bits if not more else passes > 1 + bits
    assert isinstance(decoded, Decoded)


def test_groups_do_not_meet() -> None:
    with ready(Stream(4, ["plain", "concatenated", "normed"]), torch.rand(2, 3)) as (_, _, reach):
        groups = apart(reach)
        assert sorted(source for group in groups for source in group) == sorted(reach)
        for group in groups:
            for one in group:
                for other in group:
                    shared = reach[one].keys() & reach[other].keys()
                    meet = any(bool((reach[one][site][-1] & reach[other][site][-1]).any()) for site in shared)
                    assert one == other or not meet
