"""Write the files of this folder: run once, with the version of dpap whose files later versions must go on reading.

`python tests/versions/write.py OUT` wrote `0.1.0` with commit fea3933. It uses public names only, so that the next
change of a format can run it again, for a folder of its own.
"""

import os
import shutil
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import dpap
from dpap.cli import main
from dpap.spiking import LIF

TRAIN = [
    "train", "--quiet", "--name", "run", "--data.name", "digits", "--data.batch_size", "256",
    "--network.layers", "4C3-AvgPool2-6C3-AvgPool2-12FC-10FC", "--network.neuron", "lif", "--network.timesteps", "3",
    "--pruning.target", "0.5", "--pruning.end_epoch", "3", "--pruning.timestep_target", "0.3",
    "--pruning.compact", "auto", "--training.epochs", "4", "--training.learning_rate", "0.01",
    "--training.schedule", "constant", "--training.threads", "1",
]  # fmt: skip


def network() -> nn.Module:
    """A convolution with batch norm, a grouped one, and two fully connected layers; over [T, B, 2, 4, 4]."""
    torch.manual_seed(0)
    return nn.Sequential(
        _Folded(nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)), LIF(),
        _Folded(nn.Conv2d(8, 8, 3, padding=1, groups=2)), LIF(),
        nn.Flatten(2), nn.Linear(128, 12), LIF(), nn.Linear(12, 3),
    )  # fmt: skip


class _Folded(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def config() -> dpap.PruningConfig:
    """Units, synapses and timesteps die, and operations are counted; by the paper's rule, which was the default."""
    rule = getattr(dpap.PruningConfig, "paper", dpap.PruningConfig)
    return rule(
        target=0.7,
        target_of="synaptic_operations",
        end_epoch=4,
        start_epoch=0,
        observe_every=1,
        timestep_target=0.4,
    )


def learner() -> tuple[nn.Module, torch.optim.Optimizer, dpap.Pruner]:
    """A freshly built network, its optimizer and pruner."""
    model = network().double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    return model, optimizer, dpap.Pruner(model, batch(0)[:1], optimizer, config())


def batch(seed: int) -> tuple[Tensor, Tensor]:
    """Input [T, B, 2, 4, 4] and classes [B]."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(4, 16, 2, 4, 4, generator=generator, dtype=torch.float64) * 3
    return x, torch.randint(3, (16,), generator=generator)


def epoch(model: nn.Module, optimizer: torch.optim.Optimizer, pruner: dpap.Pruner) -> None:
    """Two steps of the optimizer and one of the pruner."""
    for seed in range(2):
        x, labels = batch(10 * pruner.epoch + seed)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x).mean(0), labels).backward()
        optimizer.step()
    pruner.step()


def write(folder: Path) -> None:
    """All files; double precision, so that no rounding decides whether a neuron fires."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True)
    os.chdir(folder)
    model, optimizer, pruner = learner()
    for _ in range(2):
        epoch(model, optimizer, pruner)
    pruner.compact()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "pruner": pruner.state_dict()}
    torch.save({**state, "survival": pruner.survival(), "sparsity": pruner.sparsity}, "state.pt")
    epoch(model, optimizer, pruner)
    pruner.compact()
    torch.save({"model": model.state_dict(), "survival": pruner.survival()}, "after.pt")
    dpap.save(model, "model.safetensors")
    torch.save(model.eval()(batch(99)[0]).detach(), "output.pt")
    assert main([*TRAIN, "--out", "whole"]) == 0
    Path("whole/summary.json").rename("run-summary.json")
    shutil.rmtree("whole")
    _train_two_epochs("run")


def _train_two_epochs(folder: str) -> None:
    """A run that stops while its third epoch is written down."""
    from dpap.experiment import train

    append = train.append

    def stop(path: Path, record: dict) -> None:
        if record["epoch"] == 3:
            raise KeyboardInterrupt
        append(path, record)

    train.append = stop
    try:
        assert main([*TRAIN, "--out", folder]) == 130
    finally:
        train.append = append


if __name__ == "__main__":
    write(Path(sys.argv[1]))
