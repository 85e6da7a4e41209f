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


def test_picojoules_tell_spikes_from_analogue_input():
    layer = nn.Linear(2, 3)
    spikes = synaptic_operations(layer, [torch.tensor([[1.0, 0.0]])])
    analogue = synaptic_operations(layer, [torch.tensor([[0.5, 0.0]])])
    assert inference_picojoules(spikes) == pytest.approx(3 * 0.9)
    assert inference_picojoules(analogue) == pytest.approx(3 * 4.6)
