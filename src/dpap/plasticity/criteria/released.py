"""The criterion of the authors' released code, formula for formula."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dpap.plasticity.criteria.base import LayerContext, Normalisation
from dpap.plasticity.criteria.bcm_without_spines import BcmWithoutSpines
from dpap.plasticity.statistics import Statistics
from dpap.plasticity.survival import normalise, staircase_decay


class Released(BcmWithoutSpines):
    """The authors' released code, formula for formula.

    Traces are divided by T, sums are never reset, theta is kept per batch slot, spines are the product of
    two normalised totals, the 75th percentile clips, the dead stay in the normalisation (until they are
    removed), and the decay is a staircase that starts at epoch 5. Their code knows one batch size; here a
    smaller batch moves its own slots only, and slots that appear late start at the mean of the others. It has no
    importance of timesteps and takes the paper's.
    """

    strict = True
    slots = True

    def trace(self, counts: Float[Tensor, "time batch unit"], decay: float) -> Float[Tensor, "batch unit"]:
        """Final activity trace of a batch, over its timesteps."""
        return super().trace(counts, decay) / len(counts)

    def _threshold(self, statistics: Statistics, batch: int) -> Float[Tensor, "batch unit"]:
        slots = len(statistics.threshold)
        if batch > slots:
            start = (
                statistics.threshold.mean(0)
                if slots
                else statistics.activity.new_zeros(len(statistics.activity))
            )
            late = start.expand(batch - slots, -1)
            statistics.threshold = torch.cat([statistics.threshold, late])
        return statistics.threshold[:batch]

    def _slide(self, statistics: Statistics, post: Float[Tensor, "batch unit"]) -> None:
        slots = statistics.threshold[: len(post)]
        slots.mul_(statistics.batches).add_(post).div_(statistics.batches + 1)

    def begin_epoch(self, statistics: Statistics) -> None:
        return

    def unit_importance(self, context: LayerContext) -> Float[Tensor, " unit"]:
        statistics = context.statistics
        everyone = torch.ones_like(statistics.units, dtype=torch.bool)
        return normalise(statistics.units, everyone) * normalise(statistics.activity, everyone)

    def normalise(
        self,
        importance: Float[Tensor, "*unit"],
        alive: Bool[Tensor, "*unit"],
        mapped: Normalisation = normalise,
    ) -> Float[Tensor, "*unit"]:
        # always at the 75th percentile, whatever is asked for
        return normalise(importance, torch.ones_like(alive), quantile=0.75)

    def decay(self, epoch: int, eta: float) -> float:
        return staircase_decay(epoch, eta, start=5)
