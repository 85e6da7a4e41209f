"""What remains keeps its object, its hooks, its memory format; what cannot be sliced leaves everything as it was."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpap.anatomy import Wiring, find_wiring, register_neuron
from dpap.anatomy.layers import layer_kind
from dpap.anatomy.wiring import Attachment, WeightLayer
from dpap.surgery import CompactionError, Masks
from dpap.surgery.compact import what_remains
from dpap.surgery.slicing import Kept, keep_only
from support.twins import Twin, batch


def _kept(wiring: Wiring) -> Kept:
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    for alive in masks.units.values():
        alive[::3] = False
    return what_remains(wiring, masks.removable(wiring))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_channels_last_stays_channels_last(dimensions: int) -> None:
    memory_format = (torch.channels_last, torch.channels_last_3d)[dimensions - 2]
    convolution = (nn.Conv2d, nn.Conv3d)[dimensions - 2]
    model = nn.Sequential(
        convolution(3, 6, 3), nn.ReLU(), convolution(6, 7, 3), nn.ReLU(), convolution(7, 2, 1)
    )
    model = model.to(memory_format=memory_format)
    example = torch.rand(2, 3, *[5] * dimensions).contiguous(memory_format=memory_format)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(example).sum().backward()
    optimizer.step()
    wiring = find_wiring(model, (example,))
    keep_only(model, wiring, _kept(wiring), [optimizer])
    weight = model[2].weight
    assert weight.shape[:2] == (4, 4)
    for tensor in (weight, weight.grad, optimizer.state[weight]["momentum_buffer"]):
        assert tensor.is_contiguous(memory_format=memory_format) and not tensor.is_contiguous()
    assert model[0].bias.is_contiguous() and model(example).is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hooks_and_references_stay_while_the_last_loss_exists(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)).to(dtype)
    example, seen = torch.rand(5, 4, dtype=dtype), []
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.register_hook(lambda gradient: seen.append(gradient.shape))
        parameter.register_post_accumulate_grad_hook(lambda parameter: seen.append(parameter.grad.shape))
    model[2].register_forward_hook(lambda module, args, output: seen.append(output.shape))
    loss = model(example).sum()
    loss.backward()
    wiring = find_wiring(model, (example,))
    seen.clear()
    keep_only(model, wiring, _kept(wiring), [])
    model.zero_grad()
    model(example).sum().backward()
    assert loss.grad_fn is not None
    assert seen[0] == (5, 4)
    assert all(one is other for one, other in zip(parameters, model.parameters(), strict=True))
    assert sorted(seen[1:]) == sorted(2 * [parameter.shape for parameter in parameters])


def test_what_fails_halfway_is_undone() -> None:
    twin = Twin(lambda model: [torch.optim.Adam(model.parameters())])
    F.cross_entropy(twin.model(batch(0)), torch.arange(6) % 3).backward()
    twin.optimizers[0].step()
    before = copy.deepcopy((twin.model.state_dict(), twin.optimizers[0].state_dict()))
    kept = _kept(twin.wiring)
    kept.features["8"] = torch.tensor([0, 99])
    with pytest.raises(RuntimeError, match="99"):
        keep_only(twin.model, twin.wiring, kept, twin.optimizers)
    assert twin.model[0].out_channels == 5 and twin.model[1].num_features == 5
    _assert_same(before[0], twin.model.state_dict())
    for index, state in twin.optimizers[0].state_dict()["state"].items():
        _assert_same(before[1]["state"][index], state)
    assert all(one.grad.shape == one.shape for one in twin.model.parameters())


def _assert_same(before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def _chain(*modules: nn.Module) -> Wiring:
    """A wiring of layers in which features are the units before them, as far as slicing uses it."""
    layers = {}
    for index, module in enumerate(modules):
        kind = layer_kind(module)
        assert kind is not None
        layers[str(index)] = WeightLayer(str(index), 6, {}, {}, module, kind, 6)
    return Wiring(layers, {}, {})


def test_a_parameter_of_two_layers_is_refused() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    model[1].weight = model[0].weight
    units = torch.tensor([0, 2])
    with pytest.raises(CompactionError, match=r"0 and 1 share a parameter"):
        keep_only(model, _chain(*model), Kept({"0": units, "1": units}, {"1": units}), [])
    assert model[0].weight.shape == (6, 6) and model[0].out_features == 6


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_convolutions_follow_their_channels(multiplier: int) -> None:
    layer = nn.Conv2d(3, 3 * multiplier, 3, groups=3)
    whole = copy.deepcopy(layer)
    attachment = Attachment("0", 3 * multiplier, {}, {}, layer, {"weight": 0, "bias": 0})
    left = torch.arange(3 * multiplier).view(3, multiplier)[[0, 2]].flatten()
    undo = keep_only(nn.Sequential(layer), Wiring({}, {}, {"0": attachment}), Kept({}, {"0": left}), [])
    assert (layer.in_channels, layer.out_channels, layer.groups) == (2, 2 * multiplier, 2)
    images = torch.rand(2, 3, 5, 5)
    assert torch.allclose(layer(images[:, [0, 2]]), whole(images)[:, left])
    undo()
    assert (layer.in_channels, layer.out_channels, layer.groups) == (3, 3 * multiplier, 3)
    assert torch.equal(layer(images), whole(images))


def test_hidden_state_is_sliced_along() -> None:
    class Leaky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.membrane: Any = None

        def forward(self, current: Tensor) -> Tensor:
            self.membrane = current if self.membrane is None else 0.5 * self.membrane + current
            return torch.relu(self.membrane)

    register_neuron(Leaky, spikes=True)
    model = nn.Sequential(nn.Linear(4, 6), Leaky(), nn.Linear(6, 2))
    example = torch.rand(5, 4)
    wiring = find_wiring(model, (example,))
    model(example)
    before = model[1].membrane
    kept = _kept(wiring)
    undo = keep_only(model, wiring, kept, [])
    assert torch.equal(model[1].membrane, before[:, kept.units["0"]])
    assert model(example).shape == (5, 2)
    undo()
    assert model[1].membrane.shape == (5, 6)
