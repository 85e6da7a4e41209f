"""A small loop on the digits with Accelerate; as a program, one that is killed in the middle of an epoch."""

import os
import signal
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dpap
from dpap.integrations.accelerate import prepare_pruner
from support.small_digits import digits, small_network

EPOCHS, BATCH, END = 4, 48, 3
CONFIG = dpap.PruningConfig(target=0.6, end_epoch=END, deaths_per_epoch=2, observe_every=2)


def train(
    folder: Path,
    config: dpap.PruningConfig = CONFIG,
    load: Path | None = None,
    kill_at: int = -1,
    **options: Any,
) -> tuple[nn.Module, dpap.Pruner]:
    """Train for all epochs, or those that are left, and save every one."""
    accelerator = Accelerator(cpu=True, **options)
    images, labels, _, _ = digits()
    model = small_network(dropout=0.1)
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(images, labels), BATCH)
    model, optimizer, loader = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), 1e-2), loader)
    pruner = prepare_pruner(accelerator, model, images[:8], optimizer, config)
    if load is not None:
        accelerator.load_state(str(load))
    step = 0
    for epoch in range(pruner.epoch, EPOCHS):
        model.train()
        for x, y in loader:
            with accelerator.accumulate(model):
                accelerator.backward(nn.functional.cross_entropy(model(x), y))
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                if (step := step + 1) == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                optimizer.step()
                optimizer.zero_grad()
        pruner.step()
        accelerator.save_state(str(folder / str(epoch)))
    return accelerator.unwrap_model(model), pruner


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), replace(CONFIG, compact="auto"), kill_at=int(sys.argv[2]))
