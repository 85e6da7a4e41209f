import pytest
import torch
from torch import nn

from dpap.metrics import energy, inference_picojoules, pruned_energy, synaptic_operations


@pytest.mark.parametrize(
    ("weights", "timesteps", "published"),
    [
        (0.6201, 0.5339, 17.70),
        (0.7063, 0.6225, 11.09),
        (0.5767, 0.4993, 21.19),
        (0.8172, 0.6720, 6.00),
    ],
)
def test_published_energies(weights, timesteps, published):
    """N-MNIST and DVS-Gesture with pruned timesteps: sparsities of weights and timesteps, energy in percent."""
    assert pruned_energy(100.0, weights, timesteps) == pytest.approx(published, abs=0.011)


def test_dense_energy_is_the_product():
    assert energy(1000.0, 8) == pytest.approx(7200)
    assert energy(1000.0, 2, per_operation=1.5) == 3000


@pytest.mark.parametrize("shares", [(-0.1, 0.0), (0.0, 1.1)])
def test_sparsity_must_be_a_share(shares):
    with pytest.raises(ValueError, match="share"):
        pruned_energy(1.0, *shares)


def test_picojoules_differ_for_spikes_and_analogue_input():
    layer = nn.Linear(2, 3)
    spikes = synaptic_operations(layer, [torch.tensor([[1.0, 0.0]])])
    analogue = synaptic_operations(layer, [torch.tensor([[0.5, 0.0], [0.2137, 0.0]])])
    assert inference_picojoules(spikes) == pytest.approx(3 * 0.9)
    assert inference_picojoules(analogue) == pytest.approx(3 * 4.6)


def test_pooled_spikes_are_the_additions_of_their_spikes():
    """A pool of means folded into the next layer: the network without it does as many additions."""
    torch.manual_seed(0)
    spikes = (torch.rand(5, 3, 6, 6) < 0.3).float()
    pooled = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(27, 4))
    pixels = torch.arange(27).view(3, 3, 3).repeat_interleave(2, 1).repeat_interleave(2, 2).flatten()
    folded = nn.Sequential(nn.Flatten(), nn.Linear(108, 4))
    with torch.no_grad():
        folded[1].weight.copy_(pooled[2].weight[:, pixels] / 4)
        folded[1].bias.copy_(pooled[2].bias)
        torch.testing.assert_close(folded(spikes), pooled(spikes))
    counted, bare = synaptic_operations(pooled, [spikes]), synaptic_operations(folded, [spikes])
    assert counted.accumulates == pytest.approx(bare.accumulates)
    assert counted.total < bare.total and counted.multiplies == 0
    assert inference_picojoules(counted) == pytest.approx(0.9 * 4 * spikes.sum().item() / 5)


def test_grey_levels_are_multiplied_where_that_is_cheaper():
    layer = nn.Linear(16, 3)
    bright = synaptic_operations(layer, [torch.arange(16)[None] / 16])
    assert bright.layers[0].additions == pytest.approx(3 * sum(range(16)))
    assert inference_picojoules(bright) == pytest.approx(3 * 15 * 4.6)
