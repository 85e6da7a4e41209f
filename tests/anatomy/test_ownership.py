"""Values belong to units by what they move, not by their size."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dpap import find_wiring, register_neuron
from dpap.anatomy.ownership import Replay, feature_axes, study_further, unit_axes
from support.cases import LowRank

SIZE = 16
"""Of channels and of timesteps alike."""


class Own(nn.Module):
    """One parameter of a given form, used on [batch, channel, time] by a function."""

    def __init__(self, form: tuple[int, ...], use: Any, fill: float = 1.0) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.full(form, fill))
        self.gate = nn.Parameter(torch.zeros(()))
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.use(x, self.own, self.gate)
        return result


USES: dict[str, tuple[tuple[int, ...], Any, int | None]] = {
    "a weight of each timestep": ((SIZE,), lambda x, own, _: x * own, None),
    "one that starts without effect": ((SIZE,), lambda x, own, gate: x + gate * own, None),
    "a scale of each channel": ((SIZE,), lambda x, own, _: x * own[:, None], 0),
    "layer scale in channels last": ((SIZE,), lambda x, own, _: (x.mT * own).mT, 0),
    "channels by time": ((SIZE, SIZE), lambda x, own, _: x + own, 0),
    "time by channels": ((SIZE, SIZE), lambda x, own, _: x + own.T, 1),
    "a table over time": ((4, SIZE), lambda x, own, _: x + own.sum(0), None),
    "channels in another order": ((SIZE,), lambda x, own, _: x * own.flip(0)[:, None], None),
    "a mixer of channels": ((SIZE, SIZE), lambda x, own, _: own @ x, None),
    "a threshold of each channel": ((SIZE,), lambda x, own, _: (x > own[:, None]).float(), 0),
}


@pytest.mark.parametrize("case", USES)
def test_a_parameter_belongs_to_the_units_that_it_moves(case: str) -> None:
    form, use, axis = USES[case]
    module = Own(form, use)
    replay = Replay(module, (torch.rand(2, SIZE, SIZE),), {}, -2)
    assert unit_axes(replay, ["own"], SIZE) == ({} if axis is None else {"own": axis})


@pytest.mark.parametrize("fill", [1.0, 0.0])
def test_time_weights_live_on_when_channels_die(fill: float) -> None:
    form, use, _ = USES["one that starts without effect" if fill == 0 else "a weight of each timestep"]
    model = nn.Sequential(
        nn.Conv1d(3, SIZE, 3, padding=1), nn.ReLU(), Own(form, use), nn.ReLU(), nn.Conv1d(SIZE, 2, 1)
    )
    wiring = find_wiring(model, (torch.randn(2, 3, SIZE),))
    assert "2" not in wiring.attachments


def test_normalisations_and_neurons_belong_by_all_their_values() -> None:
    class Threshold(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.threshold = nn.Parameter(torch.ones(SIZE))
            self.register_buffer("of_time", torch.ones(SIZE))

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.of_time >= self.threshold[:, None]).to(x.dtype)

    register_neuron(Threshold, spikes=True)
    model = nn.Sequential(
        nn.Conv1d(3, SIZE, 1),
        nn.BatchNorm1d(SIZE),
        nn.PReLU(SIZE),
        nn.Conv1d(SIZE, SIZE, 3, padding=1, groups=SIZE),
        Threshold(),
        nn.Conv1d(SIZE, 2, 1),
    )
    wiring = find_wiring(model, (torch.randn(2, 3, SIZE),))
    assert {name: one.tensors for name, one in wiring.attachments.items()} == {
        "1": dict.fromkeys(["weight", "bias", "running_mean", "running_var"], 0),
        "2": {"weight": 0},
        "3": {"weight": 0, "bias": 0},
        "4": {"threshold": 0},
    }


class Noisy(nn.Linear):
    """As in deep Q networks: noise on weights and biases, drawn anew by every training forward."""

    def __init__(self, features: int, units: int) -> None:
        super().__init__(features, units)
        self.sigma = nn.Parameter(torch.full((units, features), 0.1))
        self.sigma_bias = nn.Parameter(torch.full((units,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if self.training:
            weight = weight + self.sigma * torch.randn_like(self.sigma)
            bias = bias + self.sigma_bias * torch.randn_like(self.sigma_bias)
        return nn.functional.linear(x, weight, bias)


def test_further_values_of_a_layer_belong_to_units_or_features() -> None:
    found = study_further(Replay(LowRank(6, 8), (torch.rand(2, 6),), {}, -1))
    axes = {name: (belonging.unit, belonging.feature) for name, belonging in found.belonging.items()}
    assert axes == {"down": (None, 1), "up": (0, None)}
    assert found.silenced and found.connecting


def test_noise_of_training_belongs_to_units_and_features() -> None:
    found = study_further(Replay(Noisy(6, 8), (torch.rand(2, 6),), {}, -1))
    axes = {name: (belonging.unit, belonging.feature) for name, belonging in found.belonging.items()}
    assert axes == {"sigma": (0, 1), "sigma_bias": (0, None)}
    assert found.silenced


def test_a_square_weight_of_features_is_one_of_features() -> None:
    class Scaled(nn.Linear):
        def __init__(self) -> None:
            super().__init__(8, 8)
            self.scale = nn.Parameter(torch.ones(8))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * self.scale)

    replay = Replay(Scaled(), (torch.rand(2, 8),), {}, -1)
    assert unit_axes(replay, ["scale"], 8, -1) == {}
    assert feature_axes(replay, ["scale"], 8) == {"scale": 0}


def test_running_again_leaves_no_trace() -> None:
    model = nn.Sequential(Noisy(6, 8), nn.BatchNorm1d(8), nn.ReLU(), LowRank(8, 8), nn.Linear(8, 2)).train()
    before = copy.deepcopy(model.state_dict())
    pointers = [tensor.data_ptr() for tensor in model.state_dict().values()]
    example = torch.rand(4, 6)
    state = torch.get_rng_state()
    find_wiring(model, (example,))
    assert torch.equal(state, torch.get_rng_state())
    assert all(module.training for module in model.modules())
    assert [tensor.data_ptr() for tensor in model.state_dict().values()] == pointers
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


class Centred(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight - self.weight.mean(1, keepdim=True), self.bias)


class Standardised(nn.Linear):
    """In training only."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        variance, mean = torch.var_mean(self.weight, 1, keepdim=True)
        return nn.functional.linear(x, (self.weight - mean) / (variance + 1e-5).sqrt(), self.bias)


class Normalised(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, nn.functional.normalize(self.weight, dim=1), self.bias)


class Ternary(nn.Linear):
    """The strongest weight, and the strongest feature of each sample, set the steps of the others."""

    def forward(self, x: Tensor) -> Tensor:
        step, size = self.weight.abs().mean(), x.abs().amax(-1, keepdim=True) / 127
        return nn.functional.linear(
            (x / size).round() * size, (self.weight / step).round().clamp(-1, 1) * step, self.bias
        )


@pytest.mark.parametrize(
    ("layer", "die"),
    [(Centred, False), (Standardised, False), (Normalised, True), (Ternary, True), (nn.Linear, True)],
)
def test_synapses_die_only_where_those_of_zero_weight_are_silent(layer: type[nn.Linear], die: bool) -> None:
    model = nn.Sequential(nn.Linear(6, SIZE), nn.ReLU(), layer(SIZE, SIZE), nn.ReLU(), nn.Linear(SIZE, 3))
    x, before, random = torch.randn(4, 6), copy.deepcopy(model.state_dict()), torch.get_rng_state()
    found = find_wiring(model, (x,)).layers["2"]
    assert found.can_die and found.synapses == die
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
