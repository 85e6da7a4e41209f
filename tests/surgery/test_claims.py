"""What is said to be dead is silent, whatever values other parameters take; else its layer is left whole."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import dpap
from dpap.anatomy import Wiring, find_wiring
from dpap.surgery import Masks
from dpap.surgery.claims import not_silent
from dpap.surgery.compact import remove_dead
from dpap.surgery.silence import impose
from dpap.surgery.trial import try_removal
from support.cases import LowRank

FEATURES, UNITS = 6, 12


class Adapter(nn.Linear):
    """The same by layers of its own inside."""

    def __init__(self, features: int, units: int) -> None:
        super().__init__(features, units)
        self.down, self.up = nn.Linear(features, 3, bias=False), nn.Linear(3, units)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.up(self.down(x))


class Noisy(nn.Linear):
    """Noise on weights and biases in training."""

    def __init__(self, features: int, units: int) -> None:
        super().__init__(features, units)
        self.sigma = nn.Parameter(torch.full((units, features), 0.1))
        self.register_buffer("epsilon", torch.randn(units, features))

    def forward(self, x: Tensor) -> Tensor:
        noise = self.sigma * self.epsilon if self.training else 0.0
        return nn.functional.linear(x, self.weight + noise, self.bias)


class Shifted(nn.Linear):
    """One shift for all units, as in Fixup, which starts at zero."""

    def __init__(self, features: int, units: int) -> None:
        super().__init__(features, units)
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.shift


class Centred(nn.Linear):
    """The mean of all weights is taken off, as in networks of one-bit weights."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight - self.weight.mean(), self.bias)


class Standardised(nn.Linear):
    """The weights of every unit have no mean and variance one."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean(1, keepdim=True)
        return nn.functional.linear(x, weight / (weight.std(1, keepdim=True) + 1e-5), self.bias)


class Doubled(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return 2 * value


def _bias_parametrised(features: int, units: int) -> nn.Module:
    layer = nn.Linear(features, units)
    parametrize.register_parametrization(layer, "bias", Doubled())
    return layer


def _hooked(features: int, units: int) -> nn.Module:
    layer = nn.Linear(features, units)
    layer.register_forward_hook(lambda module, args, output: output + 0.1)
    return layer


def _network(layer: Callable[[int, int], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        layer(FEATURES, UNITS), nn.ReLU(), nn.Linear(UNITS, UNITS), nn.ReLU(), nn.Linear(UNITS, 3)
    )


def _wired(model: nn.Module, example: Tensor) -> Wiring:
    wiring = find_wiring(model, (example,))
    try_removal(model, wiring, (example,))
    return wiring


def _third_dead(wiring: Wiring) -> Masks:
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    for alive in masks.units.values():
        alive[::3] = False
    return masks


LAYERS: dict[str, tuple[Callable[[int, int], nn.Module], set[str]]] = {
    "plain": (nn.Linear, {"prunable"}),
    "low rank": (LowRank, {"prunable"}),
    "adapter": (Adapter, {"prunable"}),
    "noisy": (Noisy, {"prunable"}),
    "bias of a parametrisation": (_bias_parametrised, {"prunable", "silenced"}),
    "weight norm": (lambda *size: parametrizations.weight_norm(nn.Linear(*size)), {"whole"}),
    "spectral norm": (lambda *size: nn.utils.spectral_norm(nn.Linear(*size)), {"whole"}),
    "shifted": (Shifted, {"whole"}),
    "centred": (Centred, {"whole"}),
    "standardised": (Standardised, {"prunable"}),
    "hooked": (_hooked, {"whole"}),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_dead_units_of_layers_that_do_more_than_multiply_are_silent(kind: str) -> None:
    layer, expected = LAYERS[kind]
    model, example = _network(layer), torch.randn(5, FEATURES)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wiring = _wired(model, example)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    first = wiring.layers["0"]
    assert first.prunability in expected, first.reason
    assert first.prunability == "prunable" or first.reason
    masks = _third_dead(wiring)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.rand_like(parameter) + 0.1)  # training, also of what started at zero
    impose(model, wiring, masks, ())
    for training in (False, True):
        model.train(training)
        output = model[0](torch.randn(50, FEATURES))
        for name, alive in masks.units.items():
            if name == "0":
                assert not output[:, ~alive].any() and output[:, alive].any()
    model.eval()
    if first.prunability == "prunable":
        small, small_wiring = copy.deepcopy((model, wiring))
        kept, report = remove_dead(small, small_wiring, masks, (), (example,))
        assert not report.staying and len(kept.units["0"]) == UNITS - UNITS // 3
        fresh = torch.randn(50, FEATURES)
        assert torch.allclose(small(fresh), model(fresh), atol=1e-5)


def test_single_synapses_beside_a_further_path_do_not_die() -> None:
    wiring = _wired(_network(LowRank), torch.randn(5, FEATURES))
    assert not wiring.layers["0"].synapses and wiring.layers["2"].synapses


def test_a_shift_in_the_network_leaves_the_layers_before_it_whole() -> None:
    class Shift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.by = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.by

    model = nn.Sequential(nn.Linear(FEATURES, UNITS), nn.ReLU(), Shift(), nn.Linear(UNITS, 3))
    layer = _wired(model, torch.randn(5, FEATURES)).layers["0"]
    assert layer.prunability == "whole" and "send activity to 3" in layer.reason


def test_looking_names_what_is_not_silent() -> None:
    model, example = _network(nn.Linear), (torch.randn(5, FEATURES),)
    wiring = find_wiring(model, example)
    masks = _third_dead(wiring)
    assert set(not_silent(model, wiring, masks, example)) == {"0", "2"}
    impose(model, wiring, masks, ())
    state = torch.get_rng_state()
    assert not_silent(model, wiring, masks, example) == {}
    assert torch.equal(state, torch.get_rng_state())
    with torch.no_grad():
        model[0].bias[0] = 0.5
    assert not_silent(model, wiring, masks, example) == {"0": "emit something"}


class Changing(nn.Linear):
    """Emits more than its weight says once it is told to."""

    more = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.more


def test_a_claim_that_fails_in_training_is_taken_back() -> None:
    model = _network(Changing)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    config = dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=3, synapses=False, scope="layer")
    pruner = dpap.Pruner(model, torch.randn(5, FEATURES), optimizer, config)
    assert "0" in pruner.survival()

    def epoch() -> None:
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(20, FEATURES)).square().mean().backward()
            optimizer.step()

    model[0].more = 0.5
    epoch()
    with pytest.warns(UserWarning, match="units of 0 were silenced, but they"):
        pruner.step()
    layer = pruner.wiring.layers["0"]
    assert layer.prunability == "whole" and layer.reason
    assert set(pruner.survival()) == {"2"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        epoch()
        report = pruner.step()
    assert {each.name: each.alive for each in report.layers}.get("0", UNITS) == UNITS
    state = pruner.state_dict()
    fresh = dpap.Pruner(_network(Changing), torch.randn(5, FEATURES), config=config)
    fresh.load_state_dict(state)
    assert set(fresh.survival()) == {"2"}


def test_noise_that_evaluation_draws_is_the_reason() -> None:
    class Always(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            weight = self.weight
            return nn.functional.linear(x, weight * (1 + 0.1 * torch.randn_like(weight)), self.bias)

    layer = _wired(_network(Always), torch.randn(5, FEATURES)).layers["0"]
    assert layer.prunability == "silenced" and "draws random numbers in evaluation mode" in layer.reason


def test_further_weights_that_leave_with_units_are_not_said_to_stay() -> None:
    assert not _wired(_network(Noisy), torch.randn(5, FEATURES)).others


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_example_follows_a_network_to_another_precision(dtype: torch.dtype) -> None:
    model, x = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)), torch.randn(16, 6)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    config = dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=1, synapses=False)
    pruner = dpap.Pruner(model, x[:4], optimizer, config)
    model.to(dtype)
    model(x.to(dtype)).square().mean().backward()
    optimizer.step()
    assert pruner.step().sparsity > 0
    assert pruner.compact().parameters_after < 12 * 7 + 13 * 3
