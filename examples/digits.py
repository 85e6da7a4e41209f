"""scikit-learn's handwritten digits for the examples: training and test set, batches, and a report of the accuracy."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

BATCH = 64


class Digits(NamedTuple):
    """Images [N, 1, 8, 8] in [0, 1], and their labels [N]."""

    images: Tensor
    labels: Tensor


def load() -> tuple[Digits, Digits]:
    """1,437 random digits to train on, and 360 to test."""
    bundle = load_digits()
    images = torch.tensor(bundle.images / 16, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(bundle.target)
    train, test = torch.randperm(len(images)).tensor_split([1437])
    return Digits(images[train], labels[train]), Digits(images[test], labels[test])


def batches(digits: Digits) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels of an epoch, shuffled."""
    for batch in torch.randperm(len(digits.images)).split(BATCH):
        yield digits.images[batch], digits.labels[batch]


@torch.no_grad()
def report(when: str, model: nn.Module, logits: Callable[[Tensor], Tensor], test: Digits) -> None:
    """Print the network's size and its accuracy."""
    model.eval()
    accuracy = (logits(test.images).argmax(1) == test.labels).float().mean()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{when}: {parameters:,} parameters, test accuracy {accuracy:.1%}")
