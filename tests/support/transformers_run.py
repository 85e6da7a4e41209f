"""A small run of the transformers Trainer on the digits; as a program, one that is killed in the middle of an epoch."""

import os
import signal
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

import dpap
from dpap.integrations.transformers import PrunerCallback
from support.small_digits import digits, small_network

EPOCHS, BATCH, END = 4, 48, 3
CONFIG = dpap.PruningConfig(target=0.6, end_epoch=END, deaths_per_epoch=2, observe_every=2)


class Classifier(nn.Module):
    """Gives a loss where there are labels, as models of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_network(dropout=0.1)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.net(pixel_values)
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Samples(torch.utils.data.Dataset[Any]):
    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": self.images[index], "labels": self.labels[index]}


class Kill(TrainerCallback):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def trainer(
    folder: Path, *callbacks: TrainerCallback, model: nn.Module | None = None, **options: Any
) -> Trainer:
    x, y, validation_x, validation_y = digits()
    torch.manual_seed(0)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=128,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        **{
            "num_train_epochs": EPOCHS,
            "learning_rate": 1e-2,
            "save_strategy": "epoch",
            "eval_strategy": "epoch",
            "logging_strategy": "epoch",
            **options,
        },
    )
    return Trainer(
        model or Classifier(),
        arguments,
        train_dataset=Samples(x, y),
        eval_dataset=Samples(validation_x, validation_y),
        compute_metrics=lambda found: {
            "accuracy": float((found.predictions.argmax(1) == found.label_ids).mean())
        },
        callbacks=list(callbacks),
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    path, kill_at = Path(sys.argv[1]), int(sys.argv[2])
    trainer(path, PrunerCallback(replace(CONFIG, compact="auto")), Kill(kill_at)).train()
