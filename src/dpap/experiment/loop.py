"""One pass over the data, in training or in evaluation."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpap.experiment.errors import Diverged
from dpap.experiment.losses import Loss
from dpap.pruning.distributed import Ranks


@dataclass(frozen=True)
class Score:
    """Mean loss, and share of the samples that were classified correctly."""

    loss: float
    accuracy: float


class Tally:
    """Sums losses and hits over batches."""

    def __init__(self) -> None:
        self.samples = 0
        # tensors stay on the device, so that nothing waits for them
        self.loss: float | Tensor = 0.0
        self.hits: int | Tensor = 0

    def add(self, loss: float | Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a batch with its mean loss."""
        self.samples += len(labels)
        self.hits = self.hits + (logits.argmax(1) == labels).sum()
        # in double precision, as a number of Python's is
        self.loss = self.loss + (loss.double() if isinstance(loss, Tensor) else loss) * len(labels)

    def add_up(self, ranks: Ranks) -> None:
        """Count what the other processes counted, too."""
        rows = ranks.gather("add up scores", [self.samples, int(self.hits), float(self.loss)])
        samples, hits, self.loss = (sum(column) for column in zip(*rows, strict=True))
        self.samples, self.hits = int(samples), int(hits)

    def score(self) -> Score:
        """The means over all samples counted."""
        return Score(float(self.loss) / self.samples, int(self.hits) / self.samples)


def train_epoch(
    model: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    loss_of: Loss,
    rates: Sequence[float],
    clip: float | None,
    device: torch.device,
    on_batch: Callable[[int], None],
    precision: torch.dtype = torch.float32,
    ranks: Ranks | None = None,
) -> Score:
    """Train on every batch once.

    Args:
        model: takes the batches' x, returns logits [B, classes].
        batches: (x, labels), the batch of x is first, or second after time.
        optimizer: of the model's parameters.
        loss_of: (logits, labels) to a number.
        rates: the learning rate of each step.
        clip: largest norm of the gradient, or None.
        device: where the model is.
        on_batch: is called with the number of batches that are done.
        precision: of the forward pass, by autocast, and so of the backward pass; the loss is always float32.
        ranks: that share every batch; their gradients are averaged by the model.

    Raises:
        Diverged: when a loss is not finite; the weights are those before that batch.
    """
    model.train()
    tally, ranks = Tally(), ranks or Ranks()
    for done, ((x, labels), rate) in enumerate(zip(batches, rates, strict=False), start=1):
        for group in optimizer.param_groups:
            group["lr"] = rate
        x, labels = x.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            logits = model(x)
        loss = loss_of(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        if ranks.many:
            value = loss.item()
            rows = ranks.gather("train on a batch", [value * len(labels), len(labels)])
            total, samples = (sum(column) for column in zip(*rows, strict=True))
            whole = total / samples
            # the average over processes becomes the mean over samples, where their parts are not equally large
            loss = loss * (len(labels) * ranks.number / samples)
        else:
            # read after the backward pass is on its way: reading waits for all that a GPU was given before
            loss.backward()
            value = whole = loss.item()
        if not math.isfinite(whole):
            raise Diverged(f"the loss is {whole} in batch {done}, at learning rate {rate:.3g}")
        if ranks.many:
            loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        tally.add(value, logits, labels)
        on_batch(done)
    tally.add_up(ranks)
    return tally.score()


def evaluate(
    model: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    loss_of: Loss,
    device: torch.device,
    ranks: Ranks | None = None,
) -> Score:
    """Score every batch in evaluation mode; the mode is put back.

    The gradient is switched off by no_grad: inference tensors could not be sliced in place later. Of several `ranks`
    each gets its part of every batch, and all the score of the whole.

    Raises:
        Diverged: when a loss is not finite.
    """
    was_training = model.training
    model.eval()
    tally = Tally()
    try:
        with torch.no_grad():
            for x, labels in batches:
                x, labels = x.to(device, non_blocking=True), labels.to(device, non_blocking=True)
                logits = model(x)
                tally.add(loss_of(logits, labels), logits, labels)
    finally:
        model.train(was_training)
    tally.add_up(ranks or Ranks())
    score = tally.score()
    if not math.isfinite(score.loss):
        raise Diverged(f"the loss is {score.loss} in evaluation")
    return score
