"""A small run of skorch on the digits; as a program, one that is killed in the middle of an epoch."""

import os
import signal
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, Checkpoint, LoadInitState
from skorch.helper import predefined_split
from torch import nn

import dpap
from dpap.integrations.skorch import PrunerCallback
from support.small_digits import digits, small_network

EPOCHS, BATCH, END = 4, 48, 3
CONFIG = dpap.PruningConfig(target=0.6, end_epoch=END, deaths_per_epoch=2, observe_every=2)


def checkpoint(folder: Path, **options: Any) -> Checkpoint:
    """One that saves every epoch, if nothing else is said, with the pruner."""
    return Checkpoint(**{"monitor": None, "dirname": str(folder), "f_pruner": "pruner.pt", **options})


def net(
    *callbacks: Callback, epochs: int = EPOCHS, validation: bool = True, **options: Any
) -> NeuralNetClassifier:
    _, _, x, y = digits()
    split = predefined_split(torch.utils.data.TensorDataset(x, y)) if validation else None
    return NeuralNetClassifier(
        small_network,
        criterion=nn.CrossEntropyLoss,
        max_epochs=epochs,
        batch_size=BATCH,
        train_split=split,
        callbacks=list(callbacks),
        verbose=0,
        **{"optimizer": torch.optim.AdamW, "lr": 1e-2, **options},
    )


class Kill(Callback):
    def __init__(self, at: int) -> None:
        self.at = at
        self.seen = 0

    def on_batch_begin(self, net: Any, batch: Any = None, training: Any = None, **kwargs: Any) -> None:
        self.seen += bool(training)
        if self.seen > self.at:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    saved = checkpoint(Path(sys.argv[1]))
    pruning = PrunerCallback(replace(CONFIG, compact="auto"))
    images, labels, _, _ = digits()
    net(pruning, saved, LoadInitState(saved), Kill(int(sys.argv[2]))).fit(images, labels)
