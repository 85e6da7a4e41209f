"""The criterion of the authors' released code, formula for formula."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dpap.plasticity.criteria.base import Evidence, Normalisation
from dpap.plasticity.criteria.bcm_without_spines import BcmWithoutSpines
from dpap.plasticity.memory import Memory
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

    def _threshold(self, memory: Memory, batch: int) -> Float[Tensor, "batch unit"]:
        slots = len(memory.threshold)
        if batch > slots:
            start = memory.threshold.mean(0) if slots else memory.activity.new_zeros(len(memory.activity))
            late = start.expand(batch - slots, -1)
            memory.threshold = torch.cat([memory.threshold, late])
        return memory.threshold[:batch]

    def _slide(self, memory: Memory, post: Float[Tensor, "batch unit"]) -> None:
        slots = memory.threshold[: len(post)]
        slots.mul_(memory.batches).add_(post).div_(memory.batches + 1)

    def begin_epoch(self, memory: Memory) -> None:
        return

    def unit_importance(self, evidence: Evidence) -> Float[Tensor, " unit"]:
        memory = evidence.memory
        everyone = torch.ones_like(memory.units, dtype=torch.bool)
        return normalise(memory.units, everyone) * normalise(memory.activity, everyone)

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
