import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dpap.metrics import synaptic_operations


def slow_conv2d(x, weight, stride, padding, dilation, groups):
    """Products of a nonzero input inside the image and a nonzero weight, one by one."""
    batch, _, height, width = x.shape
    units, features, kh, kw = weight.shape
    out_h = (height + 2 * padding - dilation * (kh - 1) - 1) // stride + 1
    out_w = (width + 2 * padding - dilation * (kw - 1) - 1) // stride + 1
    x, weight = x.tolist(), weight.tolist()
    count = 0
    for n, i, r, c, j, a, b in itertools.product(*map(range, (batch, units, out_h, out_w, features, kh, kw))):
        row, column = r * stride - padding + a * dilation, c * stride - padding + b * dilation
        if 0 <= row < height and 0 <= column < width:
            feature = i // (units // groups) * features + j
            count += x[n][feature][row][column] != 0 and weight[i][j][a][b] != 0
    return count


@settings(max_examples=60)
@given(
    batch=st.integers(1, 2),
    size=st.tuples(st.integers(3, 5), st.integers(3, 5)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.integers(1, 2),
    channels=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_convolution_counts_what_a_slow_loop_counts(
    batch, size, kernel, stride, padding, dilation, groups, channels, bias, seed
):
    if any(s + 2 * padding <= dilation * (k - 1) for s, k in zip(size, kernel, strict=True)):
        return
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Conv2d(
        channels[0] * groups,
        channels[1] * groups,
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=bias,
    )
    with torch.no_grad():
        layer.weight.mul_(torch.rand(layer.weight.shape, generator=generator) < 0.6)
    x = (torch.rand(batch, channels[0] * groups, *size, generator=generator) < 0.4).float()
    result = synaptic_operations(layer, [x])
    slow = slow_conv2d(x, layer.weight, stride, padding, dilation, groups)
    assert result.total * batch == pytest.approx(slow, rel=1e-12)
    assert result.samples == batch
    assert result.layers[0].spiking
    assert result.layers[0].activity == pytest.approx(x.mean().item())


def test_linear_counts_by_hand():
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]]))
    x = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])  # 1 product, and 2
    assert synaptic_operations(layer, [x]).total == 1.5


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(2, 3, 3, padding=1), (2, 2, 5)),
        (nn.Conv3d(1, 2, 2), (2, 1, 3, 3, 3)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 3, 3)),
        (nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular", bias=False), (2, 2, 4, 4)),
        (nn.Linear(5, 4), (3, 2, 5)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_every_kind_counts_as_itself_with_masks(layer, shape):
    with torch.no_grad():
        layer.weight.mul_(torch.rand(layer.weight.shape) < 0.5)
    x = torch.randn(shape) * (torch.rand(shape) < 0.5)
    counted = synaptic_operations(layer, [x])
    assert not counted.layers[0].spiking
    with torch.no_grad():
        layer.weight.copy_(layer.weight != 0)
        if layer.bias is not None:
            layer.bias.zero_()
        assert counted.total == layer((x != 0).float()).double().sum().item() / len(x)


def test_layers_batches_and_timesteps_add_up():
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.Threshold(0.2, 0.0), nn.Flatten(), nn.Linear(32, 4, bias=False)
    )

    class Timed(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x):
            return sum(self.network(step) for step in x)

    x = (torch.rand(3, 6, 1, 4, 4) < 0.3).float()
    model = Timed()
    whole = synaptic_operations(model, [x], batch_dim=1)
    pieces = synaptic_operations(model, ((part,) for part in x.split(2, dim=1)), batch_dim=1)
    steps = [synaptic_operations(network, [step]) for step in x]
    assert [layer.name for layer in whole.layers] == ["network.0", "network.3"]
    assert whole.samples == pieces.samples == 6
    for n in range(2):
        assert whole.layers[n].per_sample == pytest.approx(pieces.layers[n].per_sample)
        assert whole.layers[n].per_sample == pytest.approx(sum(step.layers[n].per_sample for step in steps))
    assert [layer.spiking for layer in whole.layers] == [True, False]
    assert whole.accumulates == whole.layers[0].per_sample
    assert whole.multiplies == pytest.approx(whole.layers[1].per_sample)


def test_keyword_input_and_layers_that_never_run():
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(input=x)

    counted = synaptic_operations(Keyword(), [torch.ones(1, 2)])
    assert [layer.per_sample for layer in counted.layers] == [4, 0]
    assert [layer.spiking for layer in counted.layers] == [True, False]


def test_nothing_of_the_model_changes():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5))
    model[1].eval()
    called = []
    model[0].register_forward_pre_hook(lambda layer, args: called.append(layer))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weight = model[0].weight
    synaptic_operations(model, [torch.rand(2, 1, 4, 4)])
    assert model[0].weight is weight
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model] == [True, False, True]
    assert len(model[0]._forward_pre_hooks) == 1
    assert len(called) == 1


def test_hooks_and_modes_are_restored_when_the_model_fails():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(3, 2))
    with pytest.raises(RuntimeError):
        synaptic_operations(model, [torch.ones(1, 3)])
    assert not model[0]._forward_pre_hooks
    assert model.training


def test_no_samples_and_parametrised_weights_are_refused():
    with pytest.raises(ValueError, match="at least one sample"):
        synaptic_operations(nn.Linear(2, 2), [])
    layer = torch.nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="parametris"):
        synaptic_operations(layer, [torch.ones(1, 2)])
