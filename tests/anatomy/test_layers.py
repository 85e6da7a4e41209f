"""Sizes and axes of weight layers are those that torch gives them."""

import copy

import pytest
import torch
from torch import nn

from dpap.anatomy.layers import incoming, layer_kind, select, size_of


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(6, 4),
        nn.Conv1d(6, 4, 3),
        nn.Conv2d(6, 4, 3, groups=2),
        nn.Conv3d(6, 4, 1),
        nn.ConvTranspose1d(6, 4, 3),
        nn.ConvTranspose2d(6, 4, 3, groups=2),
        nn.ConvTranspose3d(6, 4, 1),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_units_and_features_lie_on_the_activity_axis(layer: nn.Module) -> None:
    kind = layer_kind(layer)
    assert kind is not None and size_of(layer) == (4, 6)
    space = [5] * (-kind.activity_axis - 1)
    assert layer(torch.rand(2, 6, *space)).shape[kind.activity_axis] == 4


def test_other_modules_are_not_weight_layers() -> None:
    assert layer_kind(nn.BatchNorm2d(3)) is None
    with pytest.raises(TypeError, match="Linear or convolution layer, or a registered one; got ReLU"):
        size_of(nn.ReLU())


LAYERS = {
    "fc": nn.Linear(6, 4),
    "conv": nn.Conv2d(6, 4, 3, padding=1),
    "grouped": nn.Conv2d(6, 4, 3, padding=1, groups=2),
    "transposed": nn.ConvTranspose2d(6, 4, 3, padding=1),
    "transposed grouped": nn.ConvTranspose2d(6, 4, 3, padding=1, groups=2),
}


@pytest.mark.parametrize("features", [None, [0, 2, 3, 5]])
@pytest.mark.parametrize("units", [None, [1, 2]])
@pytest.mark.parametrize("name", LAYERS)
def test_what_is_selected_computes_the_units_that_remain(
    name: str, units: list[int] | None, features: list[int] | None
) -> None:
    layer = LAYERS[name]
    kind = layer_kind(layer)
    assert kind is not None
    axis = kind.activity_axis
    activity = torch.rand(2, 6, *[5] * (-axis - 1))
    kept_units, kept_features = (None if one is None else torch.tensor(one) for one in (units, features))
    if kept_features is not None:
        gone = torch.ones(6, dtype=torch.bool)
        gone[kept_features] = False
        activity = activity.index_fill(axis, gone.nonzero().flatten(), 0.0)
    expected = layer(activity)
    if kept_units is not None:
        expected = expected.index_select(axis, kept_units)
    small = copy.deepcopy(layer)
    shape = layer.weight.shape
    small.weight.data = select(layer.weight.data, layer, shape, kept_units, kept_features)
    small.bias.data = layer.bias.data if kept_units is None else layer.bias.data[kept_units]
    given = activity if kept_features is None else activity.index_select(axis, kept_features)
    assert torch.allclose(small(given), expected, atol=1e-6)
    # a factored moment: means over one axis; over all groups there are none
    means = [layer.weight.data.mean(1, keepdim=True)]
    if getattr(layer, "groups", 1) == 1:
        means.append(layer.weight.data.mean(0, keepdim=True))
    for mean in means:
        left = select(mean, layer, shape, kept_units, kept_features).shape
        assert all(size in (1, whole) for size, whole in zip(left, small.weight.shape, strict=True))


@pytest.mark.parametrize("name", LAYERS)
def test_a_unit_reads_with_its_row_of_incoming_weights(name: str) -> None:
    layer = copy.deepcopy(LAYERS[name])
    kind = layer_kind(layer)
    assert kind is not None
    layer.weight.data.zero_()
    first = layer.weight.data if kind.unit_axis == 0 else layer.weight.data.transpose(0, 1)
    # unit 1 is the second of the first group; of transposed layers the second axis counts within each group
    first[1] = 1
    rows = incoming(layer).sum(1) > 0
    image = torch.ones(1, 6, *[5] * (-kind.activity_axis - 1))
    changed = (layer(image) - layer(torch.zeros_like(image))).abs().flatten(2 if image.ndim > 2 else 1)
    changed = changed.sum(2)[0] > 0 if changed.ndim > 2 else changed[0] > 0
    assert rows.tolist() == changed.tolist() and rows[1] and not rows[0]
