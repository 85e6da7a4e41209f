import pytest
import torch

from dpap.plasticity import CRITERIA
from support.context import context, rand

MAGNITUDE = CRITERIA["magnitude"]


def test_large_weights_are_important_whatever_was_active():
    statistics = MAGNITUDE.blank(2, 3, synapses=True)
    weight = torch.tensor([[1.0, -2.0, 0.0], [0.5, 0.25, 3.75]])
    MAGNITUDE.observe(statistics, rand(1, 2, 3), rand(1, 2, 2), 0.5)
    asked = context(statistics, weight)
    assert MAGNITUDE.synapse_importance(asked).tolist() == [[1, 2, 0], [0.5, 0.25, 3.75]]
    assert MAGNITUDE.unit_importance(asked).tolist() == [1, pytest.approx(1.5)]


def test_weights_of_half_precision_count_in_that_of_the_statistics():
    statistics = MAGNITUDE.blank(2, 3, synapses=True)
    asked = context(statistics, torch.ones(2, 3, dtype=torch.bfloat16))
    assert MAGNITUDE.synapse_importance(asked).dtype == torch.float32
    assert MAGNITUDE.unit_importance(asked).dtype == torch.float32
