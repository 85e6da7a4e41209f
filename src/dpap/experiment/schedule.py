"""The learning rate as a pure function of the step, so that there is no state to lose."""

import math

from dpap.experiment.config import TrainingConfig

RISE = 0.3  # share of the steps in which onecycle rises
LOW, LAST = 1 / 25, 1e-5  # where onecycle starts and ends, of the peak


def learning_rate(training: TrainingConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of one step.

    Linear warm-up, then cosine to zero (Loshchilov and Hutter 2017) or constant; or one cycle (Smith 2018) with
    cosine flanks.

    Args:
        training: peak, schedule, epochs and warm-up.
        step: steps taken before this one, over all epochs.
        steps_per_epoch: batches of an epoch.
    """
    peak, total = training.learning_rate, training.epochs * steps_per_epoch
    if training.schedule == "onecycle":
        rise = RISE * total
        if step < rise:
            return peak * _cosine(LOW, 1.0, step / rise)
        return peak * _cosine(1.0, LAST, (step - rise) / (total - rise))
    warm = training.warmup_epochs * steps_per_epoch
    if step < warm:
        return peak * (step + 1) / (warm + 1)
    if training.schedule == "constant":
        return peak
    return peak * _cosine(1.0, 0.0, (step - warm) / (total - warm))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
