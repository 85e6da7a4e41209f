"""The paper's criterion: dendritic spines (7) for units, BCM plasticity (6) for synapses."""

from jaxtyping import Float
from torch import Tensor

from dpap.plasticity.criteria.base import Criterion
from dpap.plasticity.spines import spines
from dpap.plasticity.statistics import Statistics
from dpap.plasticity.synapses import potentiation, sliding_threshold
from dpap.plasticity.traces import trace


class Bcm(Criterion):
    """The equations: sums of one epoch, theta per neuron, used before its update."""

    def trace(self, counts: Float[Tensor, "time batch unit"], decay: float) -> Float[Tensor, "batch unit"]:
        """Final activity trace of a batch."""
        return trace(counts, decay)

    def _add(
        self,
        statistics: Statistics,
        pre: Float[Tensor, "time batch feature"],
        post: Float[Tensor, "time batch unit"],
        decay: float,
    ) -> None:
        arrived, emitted = self.trace(pre, decay), self.trace(post, decay)
        threshold = self._threshold(statistics, len(emitted))
        statistics.units += self._of_units(arrived.sum(1), emitted, threshold)
        statistics.activity += emitted.sum(0)
        if statistics.synapses is not None:
            statistics.synapses.addmm_(potentiation(emitted, threshold).T, arrived)
        self._slide(statistics, emitted)

    def _threshold(self, statistics: Statistics, batch: int) -> Float[Tensor, "*slot unit"]:
        """Theta as a batch of this size sees it."""
        return statistics.threshold

    def _of_units(
        self,
        pre_total: Float[Tensor, " batch"],
        post: Float[Tensor, "batch unit"],
        threshold: Float[Tensor, "*slot unit"],
    ) -> Float[Tensor, " unit"]:
        """What the traces of one batch add to the importance of units."""
        return spines(pre_total, post, threshold)

    def _slide(self, statistics: Statistics, post: Float[Tensor, "batch unit"]) -> None:
        """Move theta on by one batch."""
        statistics.threshold = sliding_threshold(statistics.threshold, statistics.samples, post)
