"""Gradual magnitude pruning: how much is masked, what is masked, and that it stays so."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Optimizer

import dpap
from dpap.baselines import GradualMagnitude
from dpap.models import NetworkConfig, build_network
from dpap.surgery.optimizer import moments

CONFIG = dpap.PruningConfig(target=0.8, start_epoch=1, end_epoch=5)
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd momentum": lambda p: SGD(p, 0.1, momentum=0.9, weight_decay=1e-3, nesterov=True),
    "adamw": lambda p: AdamW(p, 0.01, weight_decay=0.1),
}


def _start(
    kind: str = "adamw", config: dpap.PruningConfig = CONFIG
) -> tuple[nn.Module, Tensor, Optimizer, GradualMagnitude]:
    torch.manual_seed(0)
    network = NetworkConfig(layers="4C3-BN-AvgPool2-12FC-3FC", timesteps=3, threshold=0.1)
    model, images = build_network(network, (1, 6, 6), 3), 2 * torch.rand(12, 1, 6, 6)
    optimizer = OPTIMIZERS[kind](model.parameters())
    return model, images, optimizer, GradualMagnitude(model, images, optimizer, config)


def _learn(model: nn.Module, images: Tensor, optimizer: Optimizer, batches: int = 3) -> None:
    model.train()
    for _ in range(batches):
        optimizer.zero_grad()
        F.cross_entropy(model(images), torch.arange(len(images)) % 3).backward()
        optimizer.step()


def test_every_layer_follows_the_cubic_schedule_and_loses_its_smallest() -> None:
    model, images, optimizer, pruner = _start()
    # s_t of equation (1) by hand: s_i = 0, t_0 = 1, n Delta t = 4
    schedule = [0.0] + [0.8 - 0.8 * (1 - (t - 1) / 4) ** 3 for t in (2, 3, 4, 5)] + [0.8, 0.8]
    for epoch, due in enumerate(schedule):
        _learn(model, images, optimizer)
        before = {name: weight.detach().clone() for name, weight in pruner.weights.items()}
        report = pruner.step()
        assert (report.epoch, report.target) == (epoch, pytest.approx(due))
        for layer in report.layers:
            weight, was = pruner.weights[layer.name], before[layer.name]
            assert layer.weights - layer.weights_alive == round(due * layer.weights)
            assert torch.equal(weight[weight != 0], was[weight != 0])
            if layer.weights_alive < layer.weights:
                assert was[weight == 0].abs().max() <= was[weight != 0].abs().min()
    assert pruner.sparsity == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_masked_weights_stay_masked(kind: str) -> None:
    model, images, optimizer, pruner = _start(kind)
    dead = {name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in pruner.weights.items()}
    for _ in range(6):
        _learn(model, images, optimizer)
        for name, weight in pruner.weights.items():
            assert not weight[dead[name]].any()
            assert weight.grad is not None and not weight.grad[dead[name]].any()
            assert isinstance(weight, nn.Parameter)
            assert not any(bool(moment[dead[name]].any()) for _, moment in moments(optimizer, weight))
        pruner.step()
        now = {name: ~alive for name, alive in pruner.alive_weights().items()}
        assert all(bool((now[name] | ~dead[name]).all()) for name in dead)
        dead = now
    assert all(bool(mask.any()) for mask in dead.values())


def test_biases_and_normalisation_are_left_alone() -> None:
    model, images, optimizer, pruner = _start()
    for _ in range(5):
        _learn(model, images, optimizer, 1)
        others = {
            n: p.detach().clone()
            for n, p in model.named_parameters()
            if n.removesuffix(".weight") not in pruner.weights
        }
        pruner.step()
        parameters = dict(model.named_parameters())
        assert len(others) > 3 and all(torch.equal(parameters[name], value) for name, value in others.items())


def test_no_layer_loses_its_last_weight() -> None:
    model, images, optimizer, pruner = _start(
        config=dpap.PruningConfig(target=0.999, start_epoch=0, end_epoch=1)
    )
    _learn(model, images, optimizer)
    assert min(layer.weights_alive for layer in pruner.step().layers) == 1


def test_without_an_optimizer_masked_weights_are_cleared_before_every_forward() -> None:
    model, images, _, _ = _start()
    pruner = GradualMagnitude(model, images, None, dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=1))
    pruner.step()
    with torch.no_grad():
        for weight in pruner.weights.values():
            weight.add_(1)
    model(images)
    assert all(
        torch.equal(pruner.weights[name] != 0, alive) for name, alive in pruner.alive_weights().items()
    )
