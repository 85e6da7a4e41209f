"""Grad R against the paper's update, loop by loop in numpy, and what holds with other optimizers."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

import dpap
from dpap.baselines import GradientRewiring, GradientRewiringConfig
from dpap.baselines.gradient_rewiring import location

CONFIG = dpap.PruningConfig(target=0.8, end_epoch=2)
RATE, ALPHA = 0.05, 0.4
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": lambda p: Adam(p, RATE),
    "adamw": lambda p: AdamW(p, RATE, weight_decay=0.1),
    "sgd momentum": lambda p: SGD(p, RATE, momentum=0.9),
}


def _network() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    x = torch.randn(10, 4, dtype=torch.float64)
    return model, x, torch.stack([x[:, 0].abs() - x[:, 1], x[:, 2] * 0.7], 1)


def _pruner(model: nn.Module, x: Tensor, optimizer: Optimizer, alpha: float = ALPHA) -> GradientRewiring:
    return GradientRewiring(model, x, optimizer, CONFIG, GradientRewiringConfig(alpha))


def _step(model: nn.Module, x: Tensor, y: Tensor, optimizer: Optimizer) -> None:
    optimizer.zero_grad()
    ((model(x) - y) ** 2).mean().backward()
    optimizer.step()


class Slow:
    """A network of two layers, its gradients by hand, and theta moved one synapse at a time."""

    def __init__(self, model: nn.Module) -> None:
        first, _, second = model
        self.biases = [layer.bias.detach().numpy().copy() for layer in (first, second)]
        initial = [layer.weight.detach().numpy().copy() for layer in (first, second)]
        self.signs, self.theta = [np.sign(w) for w in initial], [np.abs(w) for w in initial]

    def step(self, x: np.ndarray, y: np.ndarray, mu: float) -> None:
        w1, w2 = (s * np.maximum(theta, 0) for s, theta in zip(self.signs, self.theta, strict=True))
        z = x @ w1.T + self.biases[0]
        hidden = np.maximum(z, 0)
        error = 2 * (hidden @ w2.T + self.biases[1] - y) / y.size
        back = error @ w2 * (z > 0)
        for layer, (weight, bias) in enumerate(((back.T @ x, back.sum(0)), (error.T @ hidden, error.sum(0)))):
            for place in np.ndindex(weight.shape):
                theta = self.theta[layer][place]
                prior = ALPHA * (1 if theta > mu else -1 if theta < mu else 0)
                self.theta[layer][place] = theta - RATE * (self.signs[layer][place] * weight[place] + prior)
            self.biases[layer] = self.biases[layer] - RATE * bias


def test_theta_takes_the_path_of_the_papers_update() -> None:
    model, x, y = _network()
    slow, optimizer = Slow(model), SGD(model.parameters(), RATE)
    pruner = _pruner(model, x, optimizer)
    mu = math.log(2 - 2 * 0.8) / ALPHA
    for _ in range(60):
        _step(model, x, y, optimizer)
        slow.step(x.numpy(), y.numpy(), mu)
        for name, sign, theta in zip(("0", "2"), slow.signs, slow.theta, strict=True):
            assert np.allclose(pruner.state_dict()["theta"][name].numpy(), theta, rtol=0, atol=1e-12)
            weight = pruner.weights[name].detach().numpy()
            assert np.allclose(weight, sign * np.maximum(theta, 0), rtol=0, atol=1e-12)
    assert 0.3 < pruner.sparsity < 1


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_synapses_die_and_return_and_never_change_sign(kind: str) -> None:
    model, x, y = _network()
    optimizer = OPTIMIZERS[kind](model.parameters())
    pruner = _pruner(model, x, optimizer, alpha=0.05)
    signs = {name: weight.detach().sign() for name, weight in pruner.weights.items()}
    died, returned, dead = 0, 0, {name: weight == 0 for name, weight in pruner.weights.items()}
    for step in range(120):
        _step(model, x, y if step < 60 else -y, optimizer)
        for name, weight in pruner.weights.items():
            assert bool(((weight == 0) | (weight.sign() == signs[name])).all())
            assert torch.equal(weight != 0, pruner.alive_weights()[name])
            died += int((~dead[name] & (weight == 0)).sum())
            returned += int((dead[name] & (weight != 0)).sum())
            dead[name] = weight == 0
    assert died > returned > 0


def test_the_moments_are_those_of_the_loss_alone() -> None:
    model, x, y = _network()
    optimizer = Adam(model.parameters(), RATE)
    pruner = _pruner(model, x, optimizer)
    gradient = {}
    for name, weight in pruner.weights.items():
        weight.register_post_accumulate_grad_hook(
            lambda w, name=name: gradient.update({name: w.grad.clone()})
        )
    _step(model, x, y, optimizer)
    for name, weight in pruner.weights.items():
        assert torch.allclose(optimizer.state[weight]["exp_avg"], 0.1 * gradient[name])


@pytest.mark.parametrize("named", [False, True], ids=["nameless", "named"])
@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_theta_does_not_decay_and_the_rest_does(kind: type[Optimizer], named: bool) -> None:
    paths = []
    for decay in (0.0, 0.5):
        model, x, _ = _network()
        parameters = model.named_parameters() if named else model.parameters()
        optimizer = kind(parameters, lr=RATE, weight_decay=decay)  # type: ignore[call-arg]
        pruner = _pruner(model, x, optimizer)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        bias = model[0].bias.detach().clone()
        optimizer.step()
        assert torch.equal(model[0].bias, bias) == (decay == 0)
        assert sum(len(group["params"]) for group in optimizer.param_groups) == 4
        paths.append(pruner.state_dict()["theta"])
    assert all(torch.equal(paths[0][name], paths[1][name]) for name in paths[0])


def test_what_the_optimizer_does_not_move_stays() -> None:
    model, x, y = _network()
    model[0].weight.requires_grad_(False)
    optimizer = SGD(model.parameters(), RATE)
    before = model[0].weight.clone()
    _pruner(model, x, optimizer)
    for _ in range(5):
        _step(model, x, y, optimizer)
    assert torch.equal(model[0].weight, before)


def test_a_closure_is_refused() -> None:
    model, x, y = _network()
    optimizer = SGD(model.parameters(), RATE)
    _pruner(model, x, optimizer)

    def closure() -> float:
        return float(((model(x) - y) ** 2).mean())

    for arguments, keywords in (((closure,), {}), ((), {"closure": closure})):
        with pytest.raises(RuntimeError, match="without a closure"):
            optimizer.step(*arguments, **keywords)


@pytest.mark.parametrize("target", [0.1, 0.5, 0.9, 0.99])
def test_the_target_is_the_share_of_the_prior_below_zero(target: float) -> None:
    alpha = 0.02
    mu = location(target, alpha)
    theta = np.linspace(mu - 40 / alpha, 0, 400_001)
    density = alpha / 2 * np.exp(-alpha * np.abs(theta - mu))
    share = float(((density[1:] + density[:-1]) / 2 * np.diff(theta)).sum())
    assert share == pytest.approx(target, abs=1e-4)


def test_the_prior_has_a_scale() -> None:
    with pytest.raises(ValueError, match=r"rewiring\.alpha must be above 0; got 0"):
        GradientRewiringConfig(0.0)
