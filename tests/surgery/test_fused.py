"""Layers several rows of which make one unit: gated linear units computed at once die, learn and leave as one."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW

import dpap
from dpap.anatomy.observing.contributions import ContributionRecorder
from dpap.anatomy.views import FusedView
from dpap.baselines import GradualMagnitude
from dpap.metrics import macs
from dpap.plasticity import CRITERIA
from dpap.surgery import Masks, Silence
from dpap.surgery.compact import remove_dead
from dpap.surgery.trial import try_removal
from support.fused import (
    SPLITS,
    UNITS,
    FusedConvolutions,
    FusedNetwork,
    LowRankNetwork,
    StreamOfUnits,
    TransposedLinear,
    WrittenOutCell,
)


def _inputs(seed: int) -> Tensor:
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _build(how: str, bias: bool = True) -> Any:
    torch.manual_seed(1)
    return FusedNetwork(how, bias).double()


def _learn(model: nn.Module, optimizer: Any, seed: int) -> Tensor:
    optimizer.zero_grad()
    output = model(_inputs(seed))
    output.square().sum().backward()
    optimizer.step()
    return output


def _trained(model: nn.Module, criterion: str = "taylor", **options: Any) -> tuple[dpap.Pruner, AdamW]:
    optimizer = AdamW(model.parameters(), lr=0.01)
    config = dpap.PruningConfig(
        target=0.6, end_epoch=2, start_epoch=0, criterion=criterion, observe_every=1, **options
    )
    pruner = dpap.Pruner(model, _inputs(0), optimizer, config)
    for epoch in range(2):
        for batch in range(2):
            _learn(model, optimizer, 2 * epoch + batch)
        pruner.step()
    return pruner, optimizer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("how", SPLITS)
def test_a_unit_is_all_its_rows_and_leaves_with_them(how: str, bias: bool) -> None:
    model, x = _build(how, bias), _inputs(0)
    wiring = dpap.find_wiring(model, (x,))
    try_removal(model, wiring, (x,))
    layer, rows = wiring.layers["fused"], SPLITS[how][0]
    assert (layer.units, layer.prunability, layer.synapses) == (UNITS, "prunable", False)
    assert str(layer.neuron.module) == "down"
    assert f"each has {rows} rows of its weight" in str(wiring)
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    masks.units["fused"][[1, 2, 6]] = False
    gated = copy.deepcopy(model)
    gated.gate = masks.units["fused"].double()
    Silence(model, wiring, ()).impose(masks)
    remove_dead(model, wiring, masks, (), (x,))
    assert model.fused.out_features == len(model.fused.weight) == rows * (UNITS - 3)
    assert model.down.in_features == UNITS - 3
    torch.testing.assert_close(model(_inputs(1)), gated(_inputs(1)), rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [9, 40, 300])
@pytest.mark.parametrize("how", SPLITS)
def test_they_are_found_beside_layers_of_any_size(how: str, size: int) -> None:
    model = nn.Sequential(_build(how), nn.Linear(3, size), nn.ReLU(), nn.Linear(size, 2)).double()
    layer = dpap.find_wiring(model, (_inputs(0),)).layers["0.fused"]
    assert (layer.units, layer.prunability) == (UNITS, "prunable")


@pytest.mark.parametrize("how", SPLITS)
def test_a_compact_network_learns_on_as_the_silenced_one_does(how: str) -> None:
    model, twin = _build(how), _build(how)
    (pruner, optimizer), (silent, silent_optimizer) = _trained(model), _trained(twin)
    assert pruner.sparsity == pytest.approx(0.6, abs=0.1)
    report = pruner.compact()
    assert report.parameters_after < report.parameters_before
    assert model.down.in_features < UNITS
    for seed in range(3, 6):
        one, other = (_learn(*each, seed) for each in ((model, optimizer), (twin, silent_optimizer)))
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    silent.compact()
    assert [each.shape for each in model.parameters()] == [each.shape for each in twin.parameters()]


@pytest.mark.parametrize("how", ["swish", "interleaved", "maxout"])
def test_a_unit_contributes_what_a_gate_on_its_activity_says(how: str) -> None:
    model = _build(how)
    wiring, found = dpap.find_wiring(model, (_inputs(0),)), {}
    recorder = ContributionRecorder(model, wiring, ["fused"], (), (), 1, found.update)
    model(_inputs(1)).square().sum().backward()
    recorder.end_step()
    model.gate = torch.ones(UNITS, dtype=torch.float64, requires_grad=True)
    model(_inputs(1)).square().sum().backward()
    torch.testing.assert_close(found["fused"].units, model.gate.grad, rtol=1e-9, atol=1e-12)


def test_where_its_reader_is_frozen_a_unit_contributes_by_all_its_rows() -> None:
    model = _build("interleaved")
    model.down.requires_grad_(False)
    wiring, found = dpap.find_wiring(model, (_inputs(0),)), {}
    recorder = ContributionRecorder(model, wiring, ["fused"], (), (), 1, found.update)
    model(_inputs(1)).square().sum().backward()
    recorder.end_step()
    each = (model.fused.weight * model.fused.weight.grad).sum(1) + model.fused.bias * model.fused.bias.grad
    torch.testing.assert_close(found["fused"].units, each.detach().view(UNITS, 2).sum(1))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_judges_them(criterion: str) -> None:
    model = _build("swish")
    pruner, _ = _trained(model, criterion)
    before = model(_inputs(5))
    pruner.compact()
    assert 0 < model.down.in_features < UNITS
    torch.testing.assert_close(model(_inputs(5)), before, rtol=0, atol=1e-12)


@pytest.mark.parametrize("target_of", ["weights", "parameters", "macs", "synaptic_operations"])
def test_costs_are_those_that_are_counted(target_of: Any) -> None:
    model, x = _build("interleaved"), _inputs(0)
    assert dpap.find_wiring(model, (x,)).macs() == macs(model, x)
    dense = {"macs": macs(model, x), "parameters": sum(each.numel() for each in model.parameters())}
    pruner, _ = _trained(model, target_of=target_of)
    achieved = pruner.achieved
    assert achieved == pytest.approx(0.6, abs=0.2)
    pruner.compact()
    left = {"macs": macs(model, x), "parameters": sum(each.numel() for each in model.parameters())}
    assert pruner.wiring.macs() == left["macs"]
    if target_of in left:
        assert achieved == pytest.approx(1 - left[target_of] / dense[target_of])


def test_it_is_stored_and_loaded_into_a_fresh_network(tmp_path: Path) -> None:
    model = _build("interleaved")
    pruner, _ = _trained(model)
    pruner.compact()
    loaded = dpap.load(dpap.save(model, tmp_path / "small.safetensors"), _build("interleaved"))
    torch.testing.assert_close(loaded(_inputs(7)), model(_inputs(7)), rtol=0, atol=0)
    assert repr(loaded) == repr(model)


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("network_first", [False, True])
def test_a_pruner_goes_on_from_a_state(compacted: bool, network_first: bool) -> None:
    model = _build("swish")
    pruner, _ = _trained(model)
    if compacted:
        pruner.compact()
    fresh = _build("swish")
    other = dpap.Pruner(fresh, _inputs(0), AdamW(fresh.parameters()), pruner.config)
    loads = [
        lambda: other.load_state_dict(pruner.state_dict()),
        lambda: fresh.load_state_dict(model.state_dict()),
    ]
    for load in reversed(loads) if network_first else loads:
        load()
    torch.testing.assert_close(fresh(_inputs(5)), model(_inputs(5)), rtol=0, atol=0)
    assert other.survival() == pruner.survival() and other.sparsity == pruner.sparsity


def test_a_state_whose_units_were_rows_is_refused_with_the_reason() -> None:
    model = _build("swish")
    pruner, _ = _trained(model)
    state = pruner.state_dict()
    state["original_index"]["fused"] = torch.arange(2 * UNITS)
    state["initial_units"]["fused"] = 2 * UNITS
    fresh = _build("swish")
    other = dpap.Pruner(fresh, _inputs(0), AdamW(fresh.parameters()), pruner.config)
    with pytest.raises(ValueError, match="each row of a fused layer was a unit when it was saved"):
        other.load_state_dict(state)


def test_copies_are_cut_alike() -> None:
    model = _build("interleaved")
    follower = copy.deepcopy(model)
    config = dpap.PruningConfig(target=0.5, end_epoch=1, start_epoch=0, criterion="magnitude")
    pruner = dpap.Pruner(model, _inputs(0), None, config, copies=follower)
    model(_inputs(0))
    pruner.step()
    before = follower(_inputs(1))
    pruner.compact()
    torch.testing.assert_close(follower(_inputs(1)), before, rtol=0, atol=1e-13)
    assert follower.fused.out_features == model.fused.out_features < 2 * UNITS


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda all: pickle.loads(pickle.dumps(all))])
def test_a_pruner_is_copied_with_its_network(copied: Any) -> None:
    model = _build("sigmoid")
    model.split = torch.nn.functional.glu
    pruner, optimizer = _trained(model)
    other, other_optimizer, other_pruner = copied((model, optimizer, pruner))
    assert other_pruner.wiring.layers["fused"].module.owner is other.fused
    pruner.compact(), other_pruner.compact()
    one, two = _learn(model, optimizer, 9), _learn(other, other_optimizer, 9)
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    torch.testing.assert_close(model(_inputs(3)), other(_inputs(3)), rtol=0, atol=0)


def test_convolutions_with_norms_and_depthwise_ones_around_their_rows() -> None:
    torch.manual_seed(0)
    model, x = FusedConvolutions().double().eval(), torch.randn(3, 3, 7, dtype=torch.float64)
    wiring = dpap.find_wiring(model, (x,))
    try_removal(model, wiring, (x,))
    assert {name: layer.prunability for name, layer in wiring.layers.items()} == {
        "one": "prunable",
        "two": "prunable",
        "head": "whole",
    }
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    masks.units["one"][[0, 3]] = False
    masks.units["two"][[2, 5, 7]] = False
    Silence(model, wiring, ()).impose(masks)
    before = model(x)
    remove_dead(model, wiring, masks, (), (x,))
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-13)
    assert (model.one.out_channels, model.deep.groups, model.norm.num_features) == (12, 6, 6)
    assert (model.two.out_channels, model.both.groups, model.head.in_features) == (10, 10, 5)
    assert tuple(model.two.weight.shape) == (6, 10, 1) and model.rows.num_features == 10


def test_weights_that_count_units_along_the_second_axis() -> None:
    dpap.register_layer(
        TransposedLinear, weight="kernel", bias="offset", unit_axis=1, feature_axis=0, activity_axis=-1
    )
    model = _build("swish")
    model.fused = TransposedLinear(6, 2 * UNITS).double()
    pruner, _ = _trained(model)
    before = model(_inputs(5))
    pruner.compact()
    left = model.down.in_features
    assert 0 < left < UNITS and model.fused.kernel.shape[1] == len(model.fused.offset) == 2 * left
    torch.testing.assert_close(model(_inputs(5)), before, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "features"),
    [
        (lambda: WrittenOutCell("lstm"), 15),
        (lambda: WrittenOutCell("gru"), 15),
        (LowRankNetwork, 5),
        (StreamOfUnits, 5),
    ],
    ids=["lstm", "gru", "low rank", "stream"],
)
def test_networks_around_them_shrink_while_they_learn(make: Any, features: int) -> None:
    torch.manual_seed(1)
    model = make().double()
    optimizer, config = AdamW(model.parameters(), 0.01), dpap.PruningConfig(target=0.6, end_epoch=2)
    x = torch.randn(6, features, dtype=torch.float64)
    pruner = dpap.Pruner(model, x, optimizer, config)
    dying = {name: layer for name, layer in pruner.wiring.layers.items() if name != "head"}
    assert {layer.prunability for layer in dying.values()} <= {"prunable", "follows"}
    fused = [layer for layer in dying.values() if isinstance(layer.module, FusedView)]
    assert len(fused) == 2 and {layer.units for layer in fused} == {UNITS}
    for _ in range(3):
        for shift in range(4):
            optimizer.zero_grad()
            model(x + shift).square().sum().backward()
            optimizer.step()
        pruner.step()
    before = model(x)
    report = pruner.compact()
    assert report.parameters_after < 0.6 * report.parameters_before
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-12)


class _Halves(nn.Module):
    """Halves that go their own ways as well."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.fused, self.down = nn.Linear(5, 12), nn.Linear(6, 4)
        self.also = nn.Linear(12 if way == "all rows" else 6, 4)
        self.head, self.way = nn.Linear(4, 3), way

    def forward(self, x: Tensor) -> Tensor:
        """[sample, 5] to [sample, 3]."""
        h = self.fused(x)
        value, gate = h.chunk(2, -1)
        also = {"one half": value, "all rows": h, "reversed": value * gate.flip(-1)}[self.way]
        return self.head(torch.relu(self.down(value * torch.sigmoid(gate)) + self.also(also)))


@pytest.mark.parametrize(
    ("way", "units", "prunability"),
    [("one half", 6, "prunable"), ("all rows", 6, "prunable"), ("reversed", 12, "whole")],
)
def test_rows_are_one_unit_wherever_they_meet_or_they_are_not(way: str, units: int, prunability: str) -> None:
    torch.manual_seed(0)
    model, x = _Halves(way), torch.randn(4, 5)
    wiring = dpap.find_wiring(model, (x,))
    try_removal(model, wiring, (x,))
    layer = wiring.layers["fused"]
    assert (layer.units, isinstance(layer.module, FusedView)) == (units, units == 6)
    assert layer.prunability == prunability, layer.reason


def test_single_weights_of_a_fused_layer_die_by_other_methods() -> None:
    model = _build("swish")
    pruner = GradualMagnitude(
        model, _inputs(0), SGD(model.parameters(), 0.01), dpap.PruningConfig(target=0.5, end_epoch=2)
    )
    for epoch in range(3):
        _learn(model, SGD(model.parameters(), 0.01), epoch)
        report = pruner.step()
    layer = next(one for one in report.layers if one.name == "fused")
    assert layer.units == UNITS and layer.weights == model.fused.weight.numel()
