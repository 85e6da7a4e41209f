"""A small run of Lightning on the digits; as a program, one that is killed in the middle of an epoch."""

import os
import signal
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import dpap
from dpap.integrations.lightning import PrunerCallback
from support.small_digits import digits, small_network

EPOCHS, BATCH, END = 4, 48, 3
CONFIG = dpap.PruningConfig(target=0.6, end_epoch=END, deaths_per_epoch=2, observe_every=2)


class Digits(pl.LightningModule):
    def __init__(self, optimizer: str = "adamw", kill_at: int | None = None) -> None:
        super().__init__()
        self.net = small_network()
        self.kill_at = kill_at
        self.optimizer = optimizer

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits

    def training_step(self, batch: Any, index: int) -> Tensor:
        if self.kill_at == self.trainer.global_step:
            os.kill(os.getpid(), signal.SIGKILL)
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, index: int) -> None:
        logits = self(batch[0])
        self.log("val_loss", nn.functional.cross_entropy(logits, batch[1]))
        self.log("val_accuracy", (logits.argmax(1) == batch[1]).float().mean())

    def test_step(self, batch: Any, index: int) -> None:
        self.log("test_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        if self.optimizer == "sgd":
            return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, nesterov=True)
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)]


def loaders() -> tuple[DataLoader[Any], DataLoader[Any]]:
    x, y, validation_x, validation_y = digits()
    training = DataLoader(TensorDataset(x, y), batch_size=BATCH)
    return training, DataLoader(TensorDataset(validation_x, validation_y), batch_size=128)


def trainer(folder: Path, *callbacks: pl.Callback, epochs: int = EPOCHS, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **{"log_every_n_steps": 1, **options},
    )


def every_epoch(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, save_last=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    path, kill_at = Path(sys.argv[1]), int(sys.argv[2])
    images, _, _, _ = digits(16, 1)
    config = replace(CONFIG, compact="auto")
    trainer(path, PrunerCallback(config, images), every_epoch(path)).fit(Digits(kill_at=kill_at), *loaders())
