"""The criterion of the authors' released code, formula for formula."""

from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dpap.plasticity.criteria.base import LayerContext, Normalisation, Presentation
from dpap.plasticity.criteria.bcm_without_spines import BcmWithoutSpines
from dpap.plasticity.statistics import Statistics
from dpap.plasticity.survival import normalise, staircase_decay
from dpap.plasticity.traces import trace


class MeanTraces(Presentation):
    """A presentation whose final traces are divided by the number of timesteps."""

    @cached_property
    def pre_trace(self) -> Float[Tensor, "batch feature"]:
        """Final traces of the features, over T."""
        return trace(self.pre, self.tau) / len(self.pre)

    @cached_property
    def post_trace(self) -> Float[Tensor, "batch unit"]:
        """Final traces of the units, over T."""
        return trace(self.post, self.tau) / len(self.post)


class Released(BcmWithoutSpines):
    """The authors' released code, formula for formula.

    Traces are divided by T, sums are never reset, theta is kept per batch slot, spines are the product of
    two normalised totals, the 75th percentile clips, the dead stay in the normalisation (until they are
    removed), and the decay is a staircase that starts at epoch 5. Their code has one batch size; here a
    smaller batch moves its own slots only, and slots that appear late start at the mean of the others. It has no
    importance of timesteps and takes the paper's.
    """

    strict = True
    slots = True
    slides = False

    def presentation(
        self, pre: Float[Tensor, "time batch feature"], post: Float[Tensor, "time batch unit"], tau: float
    ) -> Presentation:
        return MeanTraces(pre, post, tau)

    def threshold(self, statistics: Statistics, batch: int) -> Float[Tensor, "batch unit"]:
        slots = len(statistics.threshold)
        if batch > slots:
            blank = statistics.activity.new_zeros(len(statistics.activity))
            start = statistics.threshold.mean(0) if slots else blank
            late = start.expand(batch - slots, -1)
            statistics.threshold = torch.cat([statistics.threshold, late])
        return statistics.threshold[:batch]

    def slide_threshold(self, statistics: Statistics, post_trace: Float[Tensor, "batch unit"]) -> None:
        slots = statistics.threshold[: len(post_trace)]
        slots.mul_(statistics.batches).add_(post_trace).div_(statistics.batches + 1)

    def begin_interval(self, statistics: Statistics, memory: float = 0.0) -> None:
        return

    def unit_importance(self, layer: LayerContext) -> Float[Tensor, " unit"]:
        statistics = layer.statistics
        everything = torch.ones_like(statistics.units, dtype=torch.bool)
        return normalise(statistics.units, everything) * normalise(statistics.activity, everything)

    def normalise(
        self,
        importance: Float[Tensor, "*unit"],
        alive: Bool[Tensor, "*unit"],
        configured: Normalisation = normalise,
    ) -> Float[Tensor, "*unit"]:
        # always at the 75th percentile, whatever is configured
        return normalise(importance, torch.ones_like(alive), quantile=0.75)

    def decay(self, epoch: int, eta: float) -> float:
        return staircase_decay(epoch, eta, start=5)
