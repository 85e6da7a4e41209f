import pytest
import torch
from torch import nn

from dpap.metrics import latencies, latency, macs
from dpap.metrics.compute import _recurrent_flops
from dpap.metrics.layers import evaluating


def test_macs_of_the_mnist_network_by_hand():
    network = nn.Sequential(
        nn.Conv2d(1, 15, 3, padding=1),
        nn.AvgPool2d(2),
        nn.Conv2d(15, 40, 3, padding=1),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(1960, 300),
        nn.Linear(300, 10),
    )
    by_hand = 15 * 9 * 28 * 28 + 40 * 15 * 9 * 14 * 14 + 1960 * 300 + 300 * 10
    assert macs(network, torch.rand(1, 1, 28, 28)) == by_hand
    assert macs(network, torch.rand(8 * 4, 1, 28, 28)) == 56_167_680


def test_macs_of_groups_stride_and_repeated_layers():
    conv = nn.Conv2d(4, 6, 3, stride=2, groups=2)
    assert macs(conv, torch.rand(2, 4, 7, 7)) == 2 * 6 * 3 * 3 * 2 * 9
    layer = nn.Linear(3, 3)
    assert macs(nn.Sequential(layer, layer), torch.rand(5, 3)) == 2 * 5 * 9


def test_macs_takes_several_inputs():
    class Product(nn.Module):
        def forward(self, a, b):
            return a @ b

    assert macs(Product(), torch.rand(2, 3), torch.rand(3, 4)) == 24


def test_latency_is_positive_and_counts_its_calls():
    model = nn.Linear(2, 2)
    calls = []
    model.register_forward_hook(lambda *_: calls.append((model.training, torch.is_grad_enabled())))
    assert latency(model, torch.rand(1, 2), repeats=3, warm_up=2) > 0
    assert calls == [(False, False)] * 5
    assert model.training
    with pytest.raises(ValueError, match="repeats"):
        latency(model, torch.rand(1, 2), repeats=0)


def test_networks_are_timed_in_turn():
    calls = []
    models = [nn.Linear(2, 2), nn.Linear(2, 3)]
    for model in models:
        model.register_forward_hook(lambda module, *_: calls.append((module.out_features, module.training)))
    seconds = latencies(models, torch.rand(1, 2), repeats=2, warm_up=1)
    assert [len(each) for each in seconds] == [2, 2]
    rounds = [calls[at : at + 2] for at in range(0, 6, 2)]
    assert len(calls) == 6 and all(sorted(each) == [(2, False), (3, False)] for each in rounds)
    assert rounds[0] != rounds[1] != rounds[2]  # another one begins
    assert all(model.training for model in models)


def test_evaluating_restores_each_mode_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2))
    model[1].eval()
    with pytest.raises(KeyError), evaluating(model):
        assert not model[0].training
        raise KeyError
    assert (model.training, model[0].training, model[1].training) == (True, True, False)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_macs_of_recurrent_layers_whatever_the_kernel(kind, gates, precision):
    module = kind(6, 10, num_layers=2, bidirectional=True).to(precision)
    timesteps_and_samples, inside, outside = 7 * 4, 10 * (6 + 10), 10 * (20 + 10)
    expected = timesteps_and_samples * gates * 2 * (inside + outside)
    assert macs(module, torch.rand(7, 4, 6, dtype=precision)) == expected


def test_macs_of_a_recurrent_kernel_that_takes_its_weights_in_a_list():
    given, weights = torch.Size([7, 4, 6]), [torch.Size(s) for s in ([40, 6], [40, 10], [40], [40])]
    assert _recurrent_flops(given, weights, 4, None, torch.Size([1, 4, 10])) == 2 * 7 * 4 * 40 * 16


def test_macs_of_a_network_that_gives_its_parameters_to_modules():
    class Queries(nn.Module):
        def __init__(self):
            super().__init__()
            self.queries = nn.Parameter(torch.rand(2, 4))
            self.keys = nn.Parameter(torch.rand(4, 4), requires_grad=False)
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(self.queries) @ x

    network = Queries()
    assert macs(network, torch.rand(3, 5, requires_grad=True)) == 2 * 4 * 3 + 2 * 3 * 5
    assert network.queries.requires_grad and not network.keys.requires_grad
