import torch
from torch import nn

from dpap.metrics import LayerWeights, Weights, parameters, weights


def test_the_mnist_network_has_the_papers_weights():
    network = nn.Sequential(
        nn.Conv2d(1, 15, 3), nn.Conv2d(15, 40, 3), nn.Linear(1960, 300), nn.Linear(300, 10)
    )
    assert weights(network).total == 596_535
    assert parameters(network) == 596_535 + 15 + 40 + 300 + 10


def test_zero_weights_by_layer():
    network = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), nn.Linear(2, 3))
    with torch.no_grad():
        network[0].weight[:2] = 0
        network[2].weight.fill_(1)
        network[2].weight[0, 1] = 0
    result = weights(network)
    assert result.layers == (LayerWeights("0", 6, 4, 108, 72), LayerWeights("2", 3, 2, 6, 5))
    assert (result.total, result.nonzero) == (114, 77)
    assert result.sparsity == 1 - 77 / 114


def test_shared_parameters_count_once_and_nothing_is_not_sparse():
    layer = nn.Linear(3, 3)
    assert parameters(nn.Sequential(layer, layer)) == 12
    assert len(weights(nn.Sequential(layer, layer)).layers) == 1
    assert Weights(()).sparsity == 0
