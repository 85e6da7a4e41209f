"""Targets in every cost, against slow counts on the network itself."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import jaxtyping
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import dpap
from dpap.anatomy.observing.sampling import StepSampler
from dpap.metrics import SynapticOperations, inference_picojoules, macs, parameters, synaptic_operations
from dpap.models import NetworkConfig, build_network
from dpap.pruning.config import TargetOf
from dpap.pruning.costs import COSTS
from dpap.pruning.layer_times import LayerTime
from dpap.pruning.observation import COUNTED
from dpap.surgery import Masks

NETWORKS = {
    "snn": NetworkConfig(layers="snn_2conv2fc", timesteps=4),
    "deep snn": NetworkConfig(layers="snn_6conv2fc", timesteps=2, width=0.25),
    "ann": NetworkConfig(layers="8C3-BN-MaxPool2-12C3-MaxPool2-40FC-10FC", neuron="relu"),
    "residual": NetworkConfig(layers="resnet8", neuron="relu", width=0.5),
}
BATCH = 16
CONV_AS_FC = dpap.Decay(epsilon=1.5, eta=12.0, beta=1.0, protection=5.0)


@cache
def _digits() -> tuple[Tensor, Tensor]:
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    return images[: 4 * BATCH], torch.tensor(digits.target[: 4 * BATCH])


def _start(network: NetworkConfig, **chosen: Any) -> tuple[nn.Module, torch.optim.Optimizer, dpap.Pruner]:
    torch.manual_seed(0)
    model = build_network(network, (1, 8, 8), 10)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    config = dpap.PruningConfig(**{"end_epoch": 3, "observe_every": 2, "deaths_per_epoch": 2, **chosen})
    return model, optimizer, dpap.Pruner(model, _digits()[0][:8], optimizer, config)


def _learn(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.train()
    for images, labels in zip(*(part.split(BATCH) for part in _digits()), strict=True):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("network", "cost"),
    [
        *((network, cost) for network in NETWORKS for cost in ("parameters", "macs", "synaptic_operations")),
        # of networks that do not spike energy is as their synaptic operations
        *((network, "energy") for network in ("snn", "deep snn")),
    ],
)
def test_a_target_is_met_and_is_what_removal_takes_away(network: str, cost: TargetOf) -> None:
    model, optimizer, pruner = _start(NETWORKS[network], target=0.6, target_of=cost)
    dense = {"parameters": parameters(model), "macs": macs(model, _digits()[0][:8])}
    reports = []
    for _ in range(3):
        _learn(model, optimizer)
        reports.append(pruner.step())
    assert reports[-1].achieved == pytest.approx(0.6, abs=0.01)
    assert reports[-1].achieved == pruner.achieved and reports[-1].target_of == cost
    assert [report.achieved for report in reports] == sorted(report.achieved for report in reports)
    assert str(reports[-1]).startswith(f"epoch 3: {pruner.achieved:.1%} of the {cost.replace('_', ' ')}")
    assert any(layer.died for layer in reports[-1].layers)
    achieved = pruner.achieved
    pruner.compact()
    assert pruner.achieved == pytest.approx(achieved, abs=1e-12)
    left = {"parameters": parameters(model), "macs": macs(model, _digits()[0][:8])}
    if cost in left:
        assert 1 - left[cost] / dense[cost] == pytest.approx(achieved, abs=1e-9)
        assert not pruner._state.masks.synapses


@contextmanager
def _recorded_inputs(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """What enters each weight layer while the network runs."""
    entered: dict[str, list[Tensor]] = {}
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    handles = [
        layer.register_forward_pre_hook(
            lambda _, args, name=name: entered.setdefault(name, []).append(args[0])
        )
        for name, layer in layers.items()
    ]
    yield entered
    for handle in handles:
        handle.remove()


def _count(model: nn.Module, entered: dict[str, list[Tensor]]) -> dict[str, SynapticOperations]:
    """Operations of each layer alone on what entered it, with its weights as they are now."""
    return {
        name: synaptic_operations(model.get_submodule(name), [part.detach() for part in parts])
        for name, parts in entered.items()
    }


@pytest.mark.parametrize("network", ["snn", "deep snn", "ann", "residual"])
def test_operations_and_energy_are_those_of_what_was_observed(network: str) -> None:
    """Deaths are counted again by masking the inputs that were recorded before."""
    for cost in ("synaptic_operations", "energy") if network == "snn" else ("energy",):
        model, optimizer, pruner = _start(
            NETWORKS[network], target=0.6, target_of=cost, start_epoch=0, end_epoch=1, observe_every=1
        )
        with _recorded_inputs(model) as entered:
            _learn(model, optimizer)
        sampler = StepSampler(1)  # every other presentation is counted
        presentations = range(len(next(iter(entered.values()))))
        counted_now = [place for place in presentations if sampler.take() and sampler.takes_also(COUNTED)]
        entered = {name: [parts[place] for place in counted_now] for name, parts in entered.items()}
        dense = _count(model, entered)
        report = pruner.step()
        for name, layer in pruner.wiring.layers.items():
            axis = layer.kind.activity_axis
            gone = ~pruner._state.masks.features(layer)
            for part in entered[name]:
                part.detach().transpose(axis, -1)[..., gone] = 0
        left = _count(model, entered)
        samples = {name: counted.samples for name, counted in dense.items()}

        def whole(counts: dict[str, SynapticOperations], by: str = cost) -> float:
            measure = inference_picojoules if by == "energy" else (lambda counted: counted.total)
            return sum(measure(counted) * counted.samples for counted in counts.values())

        assert samples == {name: counted.samples for name, counted in left.items()}
        assert report.achieved == pytest.approx(1 - whole(left) / whole(dense), abs=1e-4)


def _random_deaths(masks: Masks, generator: torch.Generator, share: float) -> Masks:
    fewer = masks.copy()
    for _, kind in fewer.tensors():
        for alive in kind.values():
            alive &= torch.rand(alive.shape, generator=generator) > share
    return fewer


@pytest.mark.parametrize("network", ["snn", "residual"])
def test_no_share_falls_when_more_die(network: str) -> None:
    chosen = {"target": 0.5, "target_of": "energy", "timesteps": network == "snn"}
    model, optimizer, pruner = _start(NETWORKS[network], **chosen)
    _learn(model, optimizer)
    pruner.step()
    ledger, generator = pruner._ledger, torch.Generator().manual_seed(0)
    layers = pruner.wiring.layer_macs().items()
    ledger.times = {
        name: LayerTime(macs / 10 + place, macs, 0.09) for place, (name, macs) in enumerate(layers)
    }
    for _ in range(2):
        masks, before = pruner._state.masks, dict.fromkeys(COSTS, 0.0)
        for share in (0.05, 0.3, 0.6, 0.9):
            masks = _random_deaths(masks, generator, share)
            shares = {cost: ledger.share(cost, masks) for cost in COSTS}
            assert all(before[cost] - 1e-12 <= shares[cost] <= 1 for cost in COSTS)
            before = shares
    assert min(before.values()) > 0.3


def test_silent_timesteps_save_their_share_of_the_spikes() -> None:
    model, optimizer, pruner = _start(
        NETWORKS["snn"], target=0.5, target_of="synaptic_operations", timesteps=True
    )
    _learn(model, optimizer)
    pruner.step()
    masks = pruner._state.masks.copy()
    assert pruner._ledger.share("synaptic_operations", masks) == pytest.approx(0.0, abs=1e-12)
    for alive in masks.timesteps.values():
        alive[:2] = False
    spikes = {
        n: seen.operations.sum() * pruner._ledger.units[n] for n, seen in pruner._ledger.activity.items()
    }
    silent = 0.5 * (sum(spikes.values()) - spikes["conv1"]) / sum(spikes.values())
    assert pruner._ledger.share("synaptic_operations", masks) == pytest.approx(float(silent))


def test_targets_of_operations_and_of_timesteps_are_met_together() -> None:
    chosen = {"target": 0.6, "target_of": "synaptic_operations", "timestep_target": 0.4, "conv": CONV_AS_FC}
    model, optimizer, pruner = _start(NETWORKS["snn"], **chosen)
    for _ in range(3):
        _learn(model, optimizer)
        report = pruner.step()
    assert report.achieved == pytest.approx(0.6, abs=0.01)
    assert report.timestep_sparsity == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("cost", ["weights", "energy"])
def test_no_layer_is_cut_off_however_much_dies(cost: TargetOf) -> None:
    network = NetworkConfig(layers="6C3-BN-AvgPool2-20FC-20FC-10FC", timesteps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, optimizer, pruner = _start(network, target=0.999, target_of=cost, compact="auto")
        for _ in range(3):
            _learn(model, optimizer)
            report = pruner.step()
    assert all(layer.alive >= 2 and layer.weights_alive >= 2 for layer in report.layers)


@pytest.mark.parametrize("cost", ["energy", "parameters"])
def test_an_interrupted_run_goes_on_to_the_same_bits(cost: TargetOf) -> None:
    chosen = {"target": 0.6, "target_of": cost, "end_epoch": 4, "compact": "auto"}
    model, optimizer, pruner = _start(NETWORKS["snn"], **chosen)
    for epoch in range(4):
        _learn(model, optimizer)
        report = pruner.step()
        if epoch == 1:
            saved = copy.deepcopy([pruner.state_dict(), model.state_dict(), optimizer.state_dict()])
    assert pruner.compact().parameters_after < pruner._ledger.parameters
    again, other, resumed_pruner = _start(NETWORKS["snn"], **chosen)
    for part, state in zip((resumed_pruner, again, other), saved, strict=True):
        part.load_state_dict(state)
    for _ in range(2):
        _learn(again, other)
        resumed = resumed_pruner.step()
    resumed_pruner.compact()
    assert resumed.achieved == report.achieved and resumed.epsilon == report.epsilon
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_target_out_of_reach_is_reported_with_what_can_be_reached() -> None:
    with pytest.warns(UserWarning, match=r"99\.0% of the parameters, is out of reach: at most") as caught:
        model, optimizer, pruner = _start(
            NETWORKS["ann"], target=0.99, target_of="parameters", min_units=4, end_epoch=2
        )
    most = float(str(caught[0].message).split("at most ")[1].split("%")[0]) / 100
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            _learn(model, optimizer)
            report = pruner.step()
    assert report.achieved == pytest.approx(most, abs=0.002)
    model, optimizer, pruner = _start(NETWORKS["ann"], target=0.99, target_of="energy", min_units=4)
    _learn(model, optimizer)
    pruner.step()
    with pytest.warns(UserWarning, match="of the energy, is out of reach"):
        _learn(model, optimizer)
        pruner.step()


def test_round_widths_are_met_as_nearly_as_they_allow() -> None:
    model, optimizer, pruner = _start(NETWORKS["deep snn"], target=0.5, target_of="macs", round_to=8)
    dense = macs(model, _digits()[0][:8])
    for _ in range(3):
        _learn(model, optimizer)
        report = pruner.step()
    pruner.compact()
    assert {layer.alive % 8 for layer in report.layers[:-1]} == {0}
    assert 1 - macs(model, _digits()[0][:8]) / dense == pytest.approx(report.achieved, abs=1e-9)
    assert report.achieved == pytest.approx(0.5, abs=0.05)


def test_an_unknown_cost_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="target_of must be one of weights, parameters"):
        dpap.PruningConfig(target_of="bytes")  # type: ignore[arg-type]


def test_observing_ends_with_the_pruner() -> None:
    model, _, pruner = _start(NETWORKS["ann"], target=0.5, target_of="energy")
    pruner.detach()
    assert not any(module._forward_pre_hooks for module in model.modules())
