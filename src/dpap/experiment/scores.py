"""How well a network classifies, class by class, whatever runs it."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpap.experiment.errors import UserError
from dpap.experiment.loop import Tally
from dpap.experiment.losses import Loss


@dataclass(frozen=True)
class ClassScores:
    """Scores over a split.

    Attributes:
        samples: how many.
        accuracy: share that was classified correctly.
        loss: their mean.
        confusion: number of samples by true class, then by predicted class.
    """

    samples: int
    accuracy: float
    loss: float
    confusion: list[list[int]]

    @property
    def by_class(self) -> list[float | None]:
        """Accuracy of the samples of each class; None where there are none."""
        return [row[label] / sum(row) if sum(row) else None for label, row in enumerate(self.confusion)]

    def as_record(self) -> dict[str, Any]:
        """Plain values for JSON, which has no infinite numbers."""
        return {
            "samples": self.samples,
            "accuracy": self.accuracy,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "accuracy_by_class": self.by_class,
            "confusion": self.confusion,
        }


@torch.no_grad()
def scored(
    forward: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    loss_of: Loss,
    device: torch.device,
    classes: int,
) -> ClassScores:
    """Score every batch, to the bits of `loop.evaluate`.

    Args:
        forward: of samples, to logits [B, classes]; in evaluation mode.
        batches: (x, labels).
        loss_of: (logits, labels) to a number.
        device: where x and labels go.
        classes: number of the network's classes.

    Raises:
        UserError: where there is no sample, or a label outside of the classes.
    """
    tally, confusion = Tally(), torch.zeros(classes, classes, dtype=torch.long)
    for x, labels in batches:
        if labels.min() < 0 or labels.max() >= classes:
            raise UserError(
                f"the data: labels must lie in 0 to {classes - 1}; got {int(labels.min())} to {int(labels.max())}"
            )
        labels = labels.to(device)
        logits = forward(x.to(device))
        tally.add(loss_of(logits, labels).item(), logits, labels)
        places = (labels * classes + logits.argmax(1)).cpu()
        confusion += torch.bincount(places, minlength=classes**2).view(classes, classes)
    if not tally.samples:
        raise UserError("the data: there is no test sample")
    score = tally.score()
    return ClassScores(tally.samples, score.accuracy, score.loss, confusion.tolist())
