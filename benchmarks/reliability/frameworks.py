"""Frameworks whose networks become smaller while several processes train them: do ranks agree, and do runs go on?

    torchrun --nproc-per-node 2 benchmarks/reliability/frameworks.py lightning    # or accelerate, transformers

A small network of convolutions is trained on the embedded digits with `compact="auto"`, on the CPU with gloo, then
resumed from its first checkpoint by a network that is built anew. Printed are how many parameters are left of the dense
network's, whether they are the same on every rank, and whether the resumed run came to the same bits.
"""

import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from trials import machine

from support.small_digits import digits, small_network

Train = Callable[[Path, bool], nn.Module]


def accelerate(folder: Path, resume: bool) -> nn.Module:
    """A loop of one's own with Accelerate."""
    from support import accelerate_run as of

    config = replace(of.CONFIG, compact="auto")
    return of.train(folder / str(resume), config, load=folder / "False" / "0" if resume else None)[0]


def lightning(folder: Path, resume: bool) -> nn.Module:
    """Lightning's Trainer, with its strategy ddp."""
    from support import lightning_run as of

    module = of.Digits()
    callback = of.PrunerCallback(replace(of.CONFIG, compact="auto"), digits(16, 1)[0], compact=True)
    ranks = int(os.environ["WORLD_SIZE"])
    trainer = of.trainer(folder, callback, of.every_epoch(folder), strategy="ddp", devices=ranks)
    trainer.fit(module, *of.loaders(), ckpt_path=str(folder / "epoch=0.ckpt") if resume else None)
    return module


def transformers(folder: Path, resume: bool) -> nn.Module:
    """The Trainer of transformers."""
    from support import transformers_run as of

    callback = of.PrunerCallback(replace(of.CONFIG, compact="auto"), compact=True)
    trainer = of.trainer(folder, callback, ddp_backend="gloo")
    first = min(folder.glob("checkpoint-*"), key=lambda each: int(each.name.split("-")[1]), default=None)
    trainer.train(resume_from_checkpoint=str(first) if resume else None)
    return trainer.model


FRAMEWORKS: dict[str, Train] = {
    "accelerate": accelerate, "lightning": lightning, "transformers": transformers,
}  # fmt: skip


def parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    """Buffers are each rank's own between two forwards, such as running means."""
    return {name: each.detach().clone() for name, each in model.named_parameters()}


def agree(found: dict[str, torch.Tensor]) -> bool:
    """Whether every rank holds the same."""
    rows: list[dict[str, torch.Tensor]] = [{}] * dist.get_world_size()
    dist.all_gather_object(rows, found)
    return all(same(row, rows[0]) for row in rows)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def main() -> int:
    """Train and resume with one framework."""
    name = sys.argv[1]
    torch.set_num_threads(1)
    folder = Path(tempfile.gettempdir()) / f"dpap-{name}-{of_this_run()}"
    whole = parameters(FRAMEWORKS[name](folder, False))
    together = agree(whole)
    resumed = parameters(FRAMEWORKS[name](folder, True))
    outcomes = {
        "the same on every rank": together and agree(resumed),
        "resumed to the same bits": same(whole, resumed),
    }
    if dist.get_rank() == 0:
        left, dense = (
            sum(each.numel() for each in many) for many in (whole.values(), small_network().parameters())
        )
        print(f"{name}, {dist.get_world_size()} processes: {left:,} of {dense:,} parameters left", outcomes)
        print(machine())
    return 0 if all(outcomes.values()) else 1


def of_this_run() -> str:
    """A word that all processes of one torchrun share."""
    return os.environ.get("TORCHELASTIC_RUN_ID", "none") + os.environ["MASTER_PORT"]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    sys.exit(main())
