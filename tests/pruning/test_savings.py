"""What deaths save, against what the costs say when they happen."""

from typing import Any

import pytest
import torch
from torch import nn

from dpap.anatomy import find_wiring
from dpap.models import NetworkConfig, build_network
from dpap.pruning.costs import CostLedger
from dpap.pruning.savings import Savings, savings, unit_groups
from dpap.surgery import Masks
from support.blocks import build

CHAIN = NetworkConfig(layers="6C3-BN-MaxPool2-8C3-20FC-10FC", neuron="relu")
RESIDUAL = NetworkConfig(layers="resnet8", neuron="relu", width=0.5)


def _ledger(model: nn.Module, inputs: Any, *, synapses: bool = True) -> tuple[CostLedger, Masks]:
    wiring = find_wiring(model, inputs)
    masks = Masks.all_alive(wiring, synapses=synapses, timesteps=False)
    return CostLedger.of_dense(model, wiring, masks, 1), masks


def _of(network: NetworkConfig, cost: str) -> tuple[CostLedger, Masks, dict[str, torch.Tensor], Savings]:
    torch.manual_seed(0)
    ledger, masks = _ledger(build_network(network, (1, 8, 8), 10), (torch.rand(2, 1, 8, 8),))
    groups = unit_groups(ledger.wiring)
    return ledger, masks, groups, savings(ledger, cost, masks, groups)


@pytest.mark.parametrize(("cost", "whole"), [("weights", "weights"), ("macs", "macs")])
@pytest.mark.parametrize("network", [CHAIN, RESIDUAL], ids=["chain", "residual"])
def test_a_group_saves_what_the_cost_falls_by_when_it_dies(
    network: NetworkConfig, cost: str, whole: str
) -> None:
    ledger, masks, groups, saved = _of(network, cost)
    total = sum(ledger.weights.values()) if whole == "weights" else ledger.macs
    for name, group in groups.items():
        number = int(group[1])
        after = masks.copy()
        inside = 0.0
        for other, members in groups.items():
            after.units[other] &= members != number
        fell = (ledger.share(cost, masks) - ledger.share(cost, after)) * -total
        # a weight between two units that both die is counted with each of them
        for reader in ledger.wiring.layers.values():
            if reader.name not in groups:
                continue
            reading = int((groups[reader.name] == number).sum())
            fed = torch.zeros(reader.features, dtype=torch.bool)
            for source, unit in reader.feeds.items():
                if source in groups:
                    fed |= (unit >= 0) & (groups[source][unit.clamp(min=0)] == number)
            each = reader.taps * (reader.positions if cost == "macs" else 1)
            inside += reading * int(fed.sum()) * each
        assert float(saved.units[name][1]) == pytest.approx(fell + inside, rel=1e-9), name


def test_a_synapse_saves_one_weight_and_what_its_feature_causes() -> None:
    ledger, masks, groups, saved = _of(CHAIN, "weights")
    assert saved.synapses.keys() == masks.synapses.keys() and masks.synapses
    assert all(bool((price == 1).all()) for price in saved.synapses.values())
    assert savings(ledger, "energy", masks, groups).synapses["fc1"].sum() == 0  # nothing was observed yet


@pytest.mark.parametrize("cost", ["weights", "macs"])
def test_a_unit_saves_what_is_stored_for_it_whatever_of_its_synapses_has_died(cost: str) -> None:
    ledger, masks, groups, saved = _of(CHAIN, cost)
    thinned = masks.copy()
    for alive in thinned.synapses.values():
        alive[:, 1:] = False
    assert thinned.weights(ledger.wiring) != masks.weights(ledger.wiring)
    after = savings(ledger, cost, thinned, groups)
    assert after.units and all(torch.equal(after.units[name], units) for name, units in saved.units.items())


def test_units_of_a_residual_stream_are_one_group_and_inner_ones_are_not() -> None:
    _, _, groups, _ = _of(RESIDUAL, "weights")
    stream = groups["conv1"]
    assert torch.equal(groups["layer1.0.conv2"], stream)
    assert not set(groups["layer1.0.conv1"].tolist()) & set(stream.tolist())
    assert len(stream.unique()) == len(stream)


@pytest.mark.parametrize("kind", ["identity shortcut", "dense", "u-net", "grouped", "squeeze and excitation"])
def test_groups_are_what_a_slow_search_finds(kind: str) -> None:
    drawn = build([kind], 3, torch.float64)
    wiring = find_wiring(drawn.model, drawn.inputs)
    neighbours: dict[tuple[str, int], set[tuple[str, int]]] = {
        (name, unit): {(name, unit)} for name, layer in wiring.layers.items() for unit in range(layer.units)
    }
    for reader in wiring.readers():
        for feature in range(reader.features):
            together = [
                (source, int(unit[feature]))
                for source, unit in reader.feeds.items()
                if source in wiring.layers and unit[feature] >= 0
            ]
            for one in together:
                neighbours[one] |= set(together)
    found = unit_groups(wiring)
    for start in neighbours:
        if start[0] not in found:
            continue
        reached, waiting = {start}, [start]
        while waiting:
            for other in neighbours[waiting.pop()] - reached:
                reached.add(other)
                waiting.append(other)
        number = int(found[start[0]][start[1]])
        same = {
            (name, unit)
            for name, group in found.items()
            for unit in range(len(group))
            if int(group[unit]) == number
        }
        assert same == {one for one in reached if one[0] in found}


def test_what_is_dead_saves_nothing_more() -> None:
    ledger, masks, groups, before = _of(CHAIN, "weights")
    masks.units["conv2"][0] = False
    after = savings(ledger, "weights", masks, groups)
    assert float(after.units["conv2"][0]) == 0
    assert float(after.units["conv1"][0]) == float(before.units["conv1"][0]) - 9
