"""A part of the embedded digits, and small networks for them, for runs in the loops of frameworks."""

import torch
from torch import Tensor, nn

from dpap.data import DataConfig, load_data

CLASSES = 10


def digits(training: int = 384, validation: int = 128) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images and labels for training, and for validation."""
    bundle = load_data(DataConfig())
    images, labels = next(bundle.train.batches(training))
    validation_images, validation_labels = next(bundle.test.batches(validation))
    return images, labels, validation_images, validation_labels


def small_network(dropout: float = 0.0) -> nn.Sequential:
    """Convolutions with normalisation, and two fully connected layers; the same weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 16, 3, padding=1, stride=2),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 32),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(32, CLASSES),
        )
