"""The paper's criterion: dendritic spines (7) for units, BCM plasticity (6) for synapses."""

from jaxtyping import Float
from torch import Tensor

from dpap.plasticity.criteria.base import Criterion, Presentation
from dpap.plasticity.spines import spines
from dpap.plasticity.statistics import Statistics
from dpap.plasticity.synapses import potentiation, sliding_threshold


class Bcm(Criterion):
    """The equations: sums of one epoch, theta per neuron, used before its update."""

    slides = True

    def observe_units(
        self, sums: Float[Tensor, " unit"], shown: Presentation, statistics: Statistics
    ) -> None:
        theta = self.threshold(statistics, len(shown.post_trace))
        sums += spines(shown.pre_trace.sum(1), shown.post_trace, theta)

    def observe_synapses(
        self, sums: Float[Tensor, "unit feature"], shown: Presentation, statistics: Statistics
    ) -> None:
        theta = self.threshold(statistics, len(shown.post_trace))
        sums.addmm_(potentiation(shown.post_trace, theta).T, shown.pre_trace)

    def end_observation(self, shown: Presentation, statistics: Statistics) -> None:
        statistics.activity += shown.post_trace.sum(0)
        self.slide_threshold(statistics, shown.post_trace)

    def threshold(self, statistics: Statistics, batch: int) -> Float[Tensor, "*slot unit"]:
        """Theta for a batch of this size."""
        return statistics.threshold

    def slide_threshold(self, statistics: Statistics, post_trace: Float[Tensor, "batch unit"]) -> None:
        """Update theta by one batch."""
        statistics.threshold = sliding_threshold(statistics.threshold, statistics.samples, post_trace)
