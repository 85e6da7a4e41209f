"""The dye arrives where activity does: compared with what really changes when a unit is driven."""

import copy
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from dpap.anatomy import find_wiring
from dpap.anatomy.staining.codes import INPUT, MIXED, NO_UNIT, codewords
from dpap.anatomy.staining.dye import Dyer, Pass, Site
from dpap.anatomy.staining.stain import stain
from dpap.spiking import SpikingNeuron
from support.networks import Drawn, Residual, chains


@pytest.mark.parametrize("units", [1, 2, 3, 10, 70, 71, 512])
def test_no_codeword_is_covered_by_the_union_of_two_others(units: int) -> None:
    words = {tuple(word) for word in codewords(units).tolist()}
    assert len(words) == units
    for one, other in list(combinations(sorted(words), 2))[:2000]:
        assert tuple(a or b for a, b in zip(one, other, strict=True)) not in words


def _driven_features(model: nn.Module, example: Tensor, source: str, unit: int) -> dict[str, Tensor]:
    """Which input features of every weight layer change when one unit's current is changed."""
    seen: list[dict[str, Tensor]] = [{}, {}]
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)}

    for driven in (0, 1):
        copied = copy.deepcopy(model).eval()
        for module in copied.modules():
            # a spike hides small changes of the current; a linear function hides none
            if isinstance(module, SpikingNeuron | nn.ReLU | nn.Dropout):
                module.forward = lambda current: current * 1.0
        for name in layers:
            module = copied.get_submodule(name)
            axis = -1 if isinstance(module, nn.Linear) else -1 - len(module.kernel_size)

            def record(
                module: nn.Module,
                args: tuple[Tensor, ...],
                name: str = name,
                driven: int = driven,
                axis: int = axis,
            ) -> None:
                seen[driven][name] = args[0].detach().movedim(axis, 0).flatten(1).clone()

            module.register_forward_pre_hook(record)
            if name == source and driven:

                def drive(module: nn.Module, args: object, output: Tensor, axis: int = axis) -> Tensor:
                    output = output.clone()
                    output.movedim(axis, 0)[unit] += 7
                    return output

                module.register_forward_hook(drive)
        with torch.no_grad():
            copied(example)
    return {n: (seen[0][n] != seen[1][n]).any(1) for n in layers}


@given(chains())
@settings(max_examples=12)
def test_feeds_are_what_changes_when_a_unit_is_driven(drawn: Drawn) -> None:
    model, example = drawn
    wiring = find_wiring(model, (example,))
    names = list(wiring.layers)
    for source, reader in pairwise(names):
        feeds = wiring.layers[reader].feeds[source]
        for unit in {0, wiring.layers[source].units - 1}:
            assert torch.equal(feeds == unit, _driven_features(model, example, source, unit)[reader])


def test_joined_features_are_found() -> None:
    wiring = find_wiring(Residual(), (torch.rand(2, 2, 4, 4),))
    read = wiring.layers
    assert set(read["inner"].feeds) == {"stem"}
    assert set(read["side"].feeds) == {"stem", "outer"}
    assert torch.equal(read["side"].feeds["stem"], torch.arange(6))
    assert torch.equal(read["side"].feeds["outer"], torch.arange(6))
    assert read["head"].feeds["side"].tolist() == [0, 1, 2, 3, *[NO_UNIT] * 6]
    assert read["head"].feeds["outer"].tolist() == [*[NO_UNIT] * 4, 0, 1, 2, 3, 4, 5]
    assert set(wiring.attachments) == {"norm"}


def test_the_network_is_left_as_it_was() -> None:
    model = Residual()
    model.norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stain(model, (torch.rand(2, 2, 4, 4),))
    assert model.training and not model.norm.training
    assert all("forward" not in module.__dict__ for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_network_is_left_as_it_was_when_it_fails() -> None:
    model = Residual()
    with pytest.raises(ValueError, match="expected 4D input"):
        stain(model, (torch.rand(2, 3, 4),))
    assert model.training
    assert all("forward" not in module.__dict__ for module in model.modules())


def test_units_behind_a_mixing_layer_are_mixed() -> None:
    model = nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 2))
    feeds = stain(model, (torch.rand(2, 3),)).feeds[Site("3")]["0"]
    assert (feeds == MIXED).all()


def test_the_input_is_a_source() -> None:
    stained = stain(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2)), (torch.rand(2, 3),))
    assert set(stained.feeds[Site("0")]) == {INPUT}
    assert INPUT not in stained.feeds[Site("2")]
    assert stained.outputs == {"2"}


def test_nan_of_the_network_itself_is_an_error() -> None:
    class Divides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, values: Tensor) -> Tensor:
            hidden = self.fc1(values)
            return self.fc2((hidden - hidden) / (hidden - hidden))

    with pytest.raises(ValueError, match="makes NaN where no dye is, seen at fc2"):
        stain(Divides(), (torch.rand(2, 3),))


def test_a_norm_that_is_first_reached_by_nothing_but_dye_mixes() -> None:
    """What is all dye when it arrives is all dye when it leaves, which tells nothing of how dye passes."""

    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6)
            self.norm, self.other, self.head = nn.LayerNorm(6), nn.LayerNorm(6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            """[sample, 4] to [sample, 2]."""
            x = self.norm(self.first(x))
            x = x + self.one(x)
            return self.head(self.other(x))

    dyer = Dyer(Stream(), (torch.rand(3, 4),))
    with dyer.ready(training_paths=False):
        dyer.observe()
        half = torch.arange(6) % 2 == 0
        dyer.run(Pass(dye={"first": half, "one": half}, narrow=True))
        found = dyer.run(Pass(dye={"one": torch.arange(6) == 1})).found
    assert bool(found[Site("head")][-1].all())
