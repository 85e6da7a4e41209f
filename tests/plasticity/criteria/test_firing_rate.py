import torch

from dpap.plasticity import CRITERIA
from support.context import context, spikes

RATE = CRITERIA["firing_rate"]


def test_everything_is_worth_its_spikes():
    pre, post = spikes(5, 3, 4), spikes(5, 3, 2, seed=7)
    statistics = RATE.blank(2, 4, synapses=True, timesteps=5, dtype=torch.float64)
    RATE.observe(statistics, pre, post, 0.5)
    asked = context(statistics)
    assert RATE.unit_importance(asked).tolist() == [int(post[..., unit].sum()) for unit in range(2)]
    of_features = [int(pre[..., feature].sum()) for feature in range(4)]
    assert RATE.synapse_importance(asked).tolist() == [of_features] * 2
    at_times = [[int(post[time, :, unit].sum()) for unit in range(2)] for time in range(5)]
    assert RATE.timestep_importance(asked).tolist() == at_times
