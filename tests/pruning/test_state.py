"""Survival after some epochs is what the equations give when they are written out in plain Python."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dpap
from dpap.plasticity import CRITERIA
from dpap.spiking import LIF, FoldTime

CONFIG = dpap.PruningConfig.paper(
    start_epoch=0,
    observe_every=1,
    min_units=1,
    min_share=0.0,
    neuron=dpap.Decay(epsilon=0.9, eta=5.0, beta=1.0, protection=2.0),
    synapse=dpap.Decay(epsilon=0.7, eta=3.0, beta=0.5, protection=2.0),
    normalisation="linear",
    clip=1.0,
)


def _normalised(values: list[float], alive: list[bool]) -> list[float]:
    masks = [value for value, lives in zip(values, alive, strict=True) if lives]
    low, high = min(masks), max(masks)
    return [(value - low) / (high - low) if high > low else 0.5 for value in values]


def _grown(survival: float, importance: float, decay: dpap.Decay, epoch: int) -> float:
    delta = 2 * importance - decay.epsilon
    change = delta + decay.protection if delta >= 0 else delta
    return CONFIG.gamma * survival + math.exp(-epoch / decay.eta) * change


def _by_hand(
    batches: list[list[tuple[Tensor, Tensor]]],
) -> tuple[list[float | None], list[list[float | None]]]:
    """Survival of units and synapses by (3)-(7), (9)-(13), one number at a time; None for the dead."""
    units, features = batches[0][0][1].shape[1], batches[0][0][0].shape[1]
    theta, seen = [0.0] * units, 0
    neuron: list[float | None] = [CONFIG.neuron.beta] * units
    synapse: list[list[float | None]] = [[CONFIG.synapse.beta] * features for _ in range(units)]
    for epoch, observed in enumerate(batches):
        spine = [0.0] * units
        bcm = [[0.0] * features for _ in range(units)]
        for pre, post in observed:
            for sample in range(len(pre)):
                for i in range(units):
                    s = float(post[sample, i])
                    for j in range(features):
                        potential = s * (s - theta[i]) * float(pre[sample, j])
                        bcm[i][j] += potential
                        spine[i] += s * potential
            for i in range(units):
                theta[i] = (theta[i] * seen + float(post[:, i].sum())) / (seen + len(post))
            seen += len(post)
        alive = [value is not None for value in neuron]
        spine = _normalised(spine, alive)
        pairs = [(i, j) for i in range(units) for j in range(features)]
        masks = [alive[i] and synapse[i][j] is not None for i, j in pairs]
        strength = dict(zip(pairs, _normalised([bcm[i][j] for i, j in pairs], masks), strict=True))
        for i in range(units):
            if neuron[i] is not None:
                grown = _grown(neuron[i], spine[i], CONFIG.neuron, epoch)
                neuron[i] = grown if grown >= 0 else None
            for j in range(features):
                if synapse[i][j] is not None and alive[i]:
                    grown = _grown(synapse[i][j], strength[i, j], CONFIG.synapse, epoch)
                    synapse[i][j] = grown if grown >= 0 else None
            if all(value is None for value in synapse[i]):
                neuron[i] = None
    return neuron, synapse


def test_survival_is_that_of_the_equations_in_plain_python() -> None:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 2)).double()
    nn.init.uniform_(model[0].bias, 0, 1)
    pruner = dpap.Pruner(model, torch.rand(2, 5).double(), None, CONFIG)
    observed: list[list[tuple[Tensor, Tensor]]] = []

    def note(module: nn.Module, args: object, out: Tensor) -> None:
        if module.training:  # the pruner looks at its deaths, in evaluation mode
            observed[-1].append((inputs, out.detach().clone()))

    model[1].register_forward_hook(note)
    deaths = []
    for _ in range(5):
        observed.append([])
        for size in (4, 3):
            inputs = torch.rand(size, 5).double() * 2
            model(inputs)
        deaths.append(sum(layer.died for layer in pruner.step().layers))
    neuron, synapse = _by_hand(observed)
    assert 0 < sum(deaths) < 9
    survival = pruner.survival()["0"]
    strongest = max((value, unit) for unit, value in enumerate(survival) if value is not None)[1]
    for unit in range(9):
        if unit != strongest:
            assert survival[unit] == (None if neuron[unit] is None else pytest.approx(neuron[unit], rel=1e-9))
    dead = (model[0].weight == 0).tolist()
    for unit in range(9):
        for feature in range(5):
            if unit != strongest:
                assert dead[unit][feature] == (neuron[unit] is None or synapse[unit][feature] is None)


def test_nothing_dies_where_nothing_was_observed() -> None:
    class Branched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused, self.head = nn.Linear(5, 8), nn.Linear(5, 8), nn.Linear(8, 2)
            self.act, self.other = nn.ReLU(), nn.ReLU()

        def forward(self, values: Tensor) -> Tensor:
            hidden = self.act(self.used(values))
            return self.head(hidden if self.training else hidden + self.other(self.unused(values)))

    model = Branched()
    pruner = dpap.Pruner(model, torch.rand(2, 5), None, dpap.PruningConfig.paper(target=0.5, end_epoch=2))
    with pytest.warns(UserWarning, match="nothing of unused was observed so far"):
        for _ in range(2):
            model(torch.rand(8, 5))
            report = pruner.step()
    alive = {layer.name: (layer.alive, layer.weights_alive) for layer in report.layers}
    assert alive["unused"] == (8, 40) and alive["used"] < (8, 40)


def test_a_unit_is_as_active_as_all_the_features_that_it_feeds() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.ReLU(), nn.Linear(36, 2)
    )
    pruner = dpap.Pruner(model, torch.randn(4, 2, 7, 7), config=CONFIG)
    images = torch.randn(5, 2, 7, 7)
    model(images)
    maps = torch.relu(model[2](torch.relu(model[0](images)))).sum((2, 3))
    memory = pruner._state.statistics["2"]
    assert torch.allclose(memory.activity, maps.sum(0), rtol=1e-4)


def test_units_of_a_group_hear_that_group_alone() -> None:
    grouped = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, groups=2), nn.ReLU(), nn.Conv2d(4, 2, 1)
    )
    pruner = dpap.Pruner(grouped, torch.randn(4, 2, 7, 7), config=CONFIG)
    batches = [torch.randn(5, 2, 7, 7), torch.randn(3, 2, 7, 7)]
    for batch in batches:
        grouped(batch)
    spines = pruner._state.statistics["2"].units
    theta, seen, expected = torch.zeros(4), 0, torch.zeros(4)
    for batch in batches:
        pre = torch.relu(grouped[0](batch))
        post = torch.relu(grouped[2](pre)).sum((2, 3))
        for unit in range(4):
            received = pre[:, 3 * (unit // 2) : 3 * (unit // 2) + 3].sum((1, 2, 3))
            expected[unit] += (post[:, unit] ** 2 * (post[:, unit] - theta[unit]) * received).sum().detach()
        theta = (theta * seen + post.sum(0).detach()) / (seen + len(post))
        seen += len(post)
    assert torch.allclose(spines, expected, rtol=1e-3)


def test_widths_stay_round_from_epoch_to_epoch() -> None:
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 20), nn.ReLU(), nn.Linear(20, 3))
    config = dpap.PruningConfig.paper(target=0.7, end_epoch=4, start_epoch=0, observe_every=1, round_to=8)
    pruner = dpap.Pruner(model, torch.rand(4, 6), None, config)
    for _ in range(4):
        model(torch.rand(16, 6))
        widths = {layer.name: layer.alive for layer in pruner.step().layers}
        assert widths["0"] % 8 == 0 and widths["2"] in (8, 16, 20)
    assert widths["0"] < 32 and pruner.sparsity == pytest.approx(0.7, abs=0.02)


class _Spiking(nn.Module):
    """A convolution, one of two groups, and two fully connected layers over three timesteps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.grouped = nn.Conv2d(2, 8, 3), FoldTime(nn.Conv2d(8, 8, 3, groups=2))
        self.hidden, self.last = FoldTime(nn.Flatten(), nn.Linear(128, 30)), FoldTime(nn.Linear(30, 4))
        self.neurons = nn.ModuleList(LIF(threshold=0.2) for _ in range(3))

    def forward(self, images: Tensor) -> Tensor:
        activity = self.first(images).expand(3, -1, -1, -1, -1)
        for neuron, layer in zip(self.neurons, (self.grouped, self.hidden, self.last), strict=True):
            activity = layer(neuron(activity))
        return activity.mean(0)


def _lived(config: dpap.PruningConfig, epochs: int = 3) -> tuple[nn.Module, dpap.Pruner]:
    torch.manual_seed(3)
    model = _Spiking()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    images, labels = torch.randn(32, 2, 8, 8), torch.randint(4, (32,))
    pruner = dpap.Pruner(model, images[:8], optimizer, config)
    for _ in range(epochs):
        for batch in range(0, 32, 16):
            optimizer.zero_grad()
            outputs = model(images[batch : batch + 16])
            nn.functional.cross_entropy(outputs, labels[batch : batch + 16]).backward()
            optimizer.step()
        pruner.step()
    return model, pruner


@pytest.mark.parametrize("criterion", CRITERIA)
def test_by_every_criterion_both_targets_are_met(criterion: Any) -> None:
    config = dpap.PruningConfig.paper(
        criterion=criterion, target=0.6, timestep_target=0.3, end_epoch=3, start_epoch=0, compact="auto"
    )
    _, pruner = _lived(config)
    assert pruner.sparsity == pytest.approx(0.6, abs=0.005)
    assert pruner.timestep_sparsity == pytest.approx(0.3, abs=0.03)


UNPROTECTED = dpap.Decay(epsilon=1.0, eta=12.0, beta=1.0, protection=0.0)


@pytest.mark.parametrize(
    "ablated",
    [
        {"trace_decay": 1.0},
        {"trace_decay": 0.0},
        {"gamma": 0.0},
        {"normalisation": "linear"},
        {"conv": UNPROTECTED, "neuron": UNPROTECTED, "synapse": UNPROTECTED},
    ],
    ids=["no trace", "last spike only", "no memory of survival", "linear normalisation", "no protection"],
)
def test_parts_of_the_method_can_be_switched_off(ablated: dict[str, Any]) -> None:
    plain = dpap.PruningConfig.paper(target=0.6, end_epoch=3, start_epoch=0, observe_every=1)
    _, whole = _lived(plain)
    _, pruner = _lived(replace(plain, **ablated))
    assert pruner.sparsity == pytest.approx(0.6, abs=0.005)
    assert pruner.survival() != whole.survival()


@pytest.mark.parametrize("criterion", ["magnitude", "random"])
def test_what_needs_no_activity_judges_without(criterion: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 2))
    config = dpap.PruningConfig.paper(criterion=criterion, target=0.5, end_epoch=1, start_epoch=0)
    pruner = dpap.Pruner(model, torch.rand(4, 6), None, config)
    pruner.step()
    assert pruner.sparsity == pytest.approx(0.5, abs=0.02)


def test_by_magnitude_the_smallest_weights_die() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 2))
    before = model[0].weight.detach().abs().clone()
    config = dpap.PruningConfig.paper(
        criterion="magnitude", target=0.3, end_epoch=1, start_epoch=0, gamma=0.0, clip=1.0, min_units=30
    )
    dpap.Pruner(model, torch.rand(4, 20), None, config).step()
    dead = model[0].weight == 0
    strongest = torch.zeros_like(dead)
    strongest[torch.arange(30), before.argmax(1)] = True
    assert dead.any() and float(before[dead].max()) <= float(before[~dead & ~strongest].min())


def test_random_deaths_are_those_of_the_seed() -> None:
    def lived(seed: int) -> dict[str, list[float | None]]:
        config = dpap.PruningConfig.paper(
            criterion="random", seed=seed, target=0.6, end_epoch=3, start_epoch=0
        )
        return _lived(config)[1].survival()

    assert lived(0) == lived(0) != lived(1)
