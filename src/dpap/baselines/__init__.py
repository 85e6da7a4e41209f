"""Published ways to prune single weights, for comparison: each takes the place of `dpap.Pruner` in an experiment."""

from dpap.baselines.gradient_rewiring import GradientRewiring, GradientRewiringConfig
from dpap.baselines.gradual_magnitude import GradualMagnitude

__all__ = ["GradientRewiring", "GradientRewiringConfig", "GradualMagnitude"]
