"""A user's own training loop on the embedded digits, and what must hold when its network is pruned."""

import copy
from collections.abc import Callable

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import dpap
from dpap.anatomy import neuron_kind
from dpap.anatomy.pytrees import float_tensors, map_floats

Present = Callable[[nn.Module, Tensor], Tensor]
"""Presents images to a network at rest; returns its output over time [T, B, ...]."""


def digits(count: int, start: int = 0) -> tuple[Tensor, Tensor]:
    """Images [B, 1, 8, 8], bright enough to make networks fire, and their labels."""
    bundle = load_digits()
    images = torch.tensor(bundle.images[start : start + count] / 4, dtype=torch.float32)
    return images.unsqueeze(1), torch.tensor(bundle.target[start : start + count])


def learn(model: nn.Module, present: Present, optimizer: torch.optim.Optimizer, batches: int = 4) -> None:
    """One epoch of the user's own."""
    model.train()
    for batch in range(batches):
        images, labels = digits(16, 16 * batch)
        loss = nn.functional.cross_entropy(present(model, images).mean(0), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)


def pruned(model: nn.Module, present: Present, expected: set[str], target: float = 0.5) -> dpap.Pruner:
    """Learn, prune and compact; the compact network must compute the same as the silenced one and go on learning."""
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    learn(model, present, optimizer, 1)
    config = dpap.PruningConfig(target=target, start_epoch=0, end_epoch=2, observe_every=2, min_units=1)
    pruner = dpap.Pruner(model, digits(4)[0], optimizer, config)
    prunable = {name for name, layer in pruner.wiring.layers.items() if layer.prunability == "prunable"}
    assert prunable == expected, str(pruner.wiring)
    for _ in range(2):
        learn(model, present, optimizer)
        pruner.step()
    assert abs(pruner.sparsity - target) < 0.1
    with torch.no_grad():
        # state that is part of a graph cannot be copied
        present(model, digits(4)[0])
    silent = copy.deepcopy(model)
    report = pruner.compact()
    assert report.parameters_after < 0.8 * report.parameters_before
    compact = copy.deepcopy(model)
    images = digits(24, 200)[0].double()
    (expected, spikes), (output, same) = (_presented(each, present, images) for each in (silent, compact))
    assert spikes == same > 0
    assert torch.allclose(expected, output, rtol=0, atol=1e-10)
    assert expected.abs().max() > 0
    learn(model, present, optimizer)
    for parameter in model.parameters():
        moment = optimizer.state[parameter].get("exp_avg")
        assert moment is None or moment.shape == parameter.shape
    return pruner


@torch.no_grad()
def _presented(model: nn.Module, present: Present, images: Tensor) -> tuple[Tensor, float]:
    """Output in double precision, and the number of spikes of its neurons."""
    spikes = 0.0

    def count(module: nn.Module, args: object, output: object) -> object:
        nonlocal spikes
        emitted = next(float_tensors(output))
        assert set(emitted.unique().tolist()) <= {0.0, 1.0}
        spikes += float(emitted.sum())
        # snnTorch emits single precision for inputs of any precision
        return map_floats(output, Tensor.double)

    for module in model.modules():
        kind = neuron_kind(module)
        if kind is not None and kind.spikes:
            module.register_forward_hook(count)
    return present(model.double().eval(), images), spikes
