"""Do several processes prune as one process of the whole batch does, how fast are they, and what if they are killed?

    python benchmarks/reliability/distributed.py              # all three, two processes
    python benchmarks/reliability/distributed.py masks throughput --ranks 2 4

- masks: for every criterion, in double precision, a small network is trained and pruned by gloo processes that share
  every batch, and by one; the entries of the masks that differ after any epoch are counted.
- throughput: `torchrun ... -m dpap train` of a spiking network, one thread a process; samples per second of training.
- killed: two processes are killed at random moments and resumed, on two processes to the bits of an uninterrupted run,
  on one to the end.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from safetensors.torch import load_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import dpap
from dpap.experiment.machine import describe_machine
from dpap.plasticity import CRITERIA

EPOCHS, BATCHES, BATCH = 4, 8, 16
FURTHER: dict[str, dict[str, Any]] = {
    "taylor, compacted while it learns": {"criterion": "taylor", "compact": "auto"},
    "taylor, of synaptic operations": {"criterion": "taylor", "target_of": "synaptic_operations"},
    "bcm, of energy": {"criterion": "bcm", "target_of": "energy"},
}
SMALL = [
    "--data.train_limit=1200", "--data.test_limit=200", "--data.batch_size=64", "--data.validation=0.1",
    "--network.layers=16C3-BN-MaxPool2-64FC-10FC", "--network.timesteps=4", "--training.threads=1",
    "--training.device=cpu", "--pruning.target=0.8", "--pruning.compact=auto",
]  # fmt: skip


def pruned(rank: int, ranks: int, seed: int, config: dict[str, Any]) -> list[dict[str, torch.Tensor]]:
    """The masks after every epoch."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 4)
    ).double()
    x = torch.rand(BATCHES * BATCH, 12, dtype=torch.float64)
    y = x.view(len(x), 4, 3).sum(2).argmax(1)
    net: nn.Module = DistributedDataParallel(model) if ranks > 1 else model
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    pruner = dpap.Pruner(
        net, x[:8], optimizer, dpap.PruningConfig(target=0.7, end_epoch=EPOCHS, observe_every=2, **config)
    )
    found = []
    for _ in range(EPOCHS):
        for some, labels in zip(x.split(BATCH), y.split(BATCH), strict=True):
            optimizer.zero_grad()
            mine, own = some.chunk(ranks)[rank], labels.chunk(ranks)[rank]
            nn.functional.cross_entropy(net(mine), own).backward()
            optimizer.step()
        pruner.step()
        masks = pruner.state_dict()
        alive = {f"{kind} {name}": one for kind, all_ in masks["masks"].items() for name, one in all_.items()}
        found.append(alive | {f"left {name}": one for name, one in masks["original_index"].items()})
    pruner.detach()
    return found


def _pruned_in(rank: int, ranks: int, folder: str, cases: dict[str, dict[str, Any]], seeds: int) -> None:
    torch.set_num_threads(1)
    if ranks > 1:
        dist.init_process_group(
            "gloo", store=dist.FileStore(f"{folder}/store{ranks}", ranks), rank=rank, world_size=ranks
        )
    found = {name: [pruned(rank, ranks, seed, case) for seed in range(seeds)] for name, case in cases.items()}
    torch.save(found, f"{folder}/{ranks}-{rank}.pt")
    if ranks > 1:
        dist.destroy_process_group()


def masks(ranks: int, seeds: int) -> None:
    """Print, for every criterion, in how many entries of the masks the processes differ from one process."""
    cases = {name: {"criterion": name} for name in CRITERIA} | FURTHER
    with tempfile.TemporaryDirectory() as folder:
        for number in (1, ranks):
            multiprocessing.spawn(_pruned_in, (number, folder, cases, seeds), number)
        alone, *others = [
            torch.load(f"{folder}/{number}-{rank}.pt")
            for number, rank in [(1, 0), *((ranks, rank) for rank in range(ranks))]
        ]
    print(f"\n| {ranks} processes, n = {seeds} seeds | entries of masks | different from one process |")
    print("| --- | ---: | ---: |")
    for name in cases:
        entries = different = 0
        for other in others:
            for ours, whole in zip(other[name], alone[name], strict=True):
                for here, there in zip(ours, whole, strict=True):
                    entries += sum(one.numel() for one in there.values())
                    different += sum(
                        int((here[key] != one).sum()) if here[key].shape == one.shape else one.numel()
                        for key, one in there.items()
                    )
        print(f"| {name} | {entries:,} | {different:,} |", flush=True)


def command(ranks: int, *flags: str) -> list[str]:
    """Of a training in so many processes."""
    if ranks == 1:
        return [sys.executable, "-m", "dpap", "train", *flags]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return [*launcher, "-m", "dpap", "train", *flags]


def throughput(numbers: list[int], rounds: int) -> None:
    """Print samples per second of training, and of an epoch with pruning and evaluation."""
    print(f"\n| processes | training, samples/s | whole epochs, samples/s | n = {rounds} runs of 5 epochs |")
    print("| ---: | ---: | ---: | --- |")
    for ranks in numbers:
        training, whole = [], []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                out = [f"--out={folder}/run", "--training.epochs=5", "--pruning.end_epoch=4"]
                subprocess.run(command(ranks, *SMALL, *out, "--quiet"), check=True, capture_output=True)
                lines = [
                    json.loads(line) for line in Path(f"{folder}/run/metrics.jsonl").read_text().splitlines()
                ]
            samples = 1080 // 64 * 64
            training += [samples / line["seconds"] for line in lines[1:]]
            seconds = [
                sum(line[part] for part in ("seconds", "prune_seconds", "evaluate_seconds")) for line in lines
            ]
            whole += [samples / each for each in seconds[1:]]
        spread = f"{min(training):,.0f} to {max(training):,.0f}"
        print(f"| {ranks} | {median(training):,.0f} ({spread}) | {median(whole):,.0f} | |", flush=True)


def _end(started: "subprocess.Popen[bytes]") -> None:
    """Kill a launcher and its processes at once."""
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()


def killed(kills: int, seed: int) -> None:
    """Print how runs end that were killed and resumed."""
    drawn = random.Random(seed)
    flags = [*SMALL, "--training.epochs=6", "--pruning.end_epoch=5", "--quiet"]
    with tempfile.TemporaryDirectory() as place:
        undisturbed = Path(place) / "whole"
        started = time.perf_counter()
        subprocess.run(command(2, *flags, f"--out={undisturbed}"), check=True, capture_output=True)
        took = time.perf_counter() - started
        outcomes = {"resumed on 2 processes: the same bits": 0, "resumed on 1 process: finished": 0}
        wrong: list[str] = []
        for number in range(kills):
            run, on = Path(place) / "run", 2 - number % 2
            shutil.rmtree(run, ignore_errors=True)
            first = subprocess.Popen(
                command(2, *flags, f"--out={run}"), start_new_session=True, stderr=subprocess.DEVNULL
            )
            time.sleep(drawn.uniform(0.2, 1.0) * took)
            _end(first)
            # a run that had not begun yet has nothing to resume
            again = (
                [f"--resume={run}", "--quiet"] if (run / "config.yaml").exists() else [*flags, f"--out={run}"]
            )
            ended = subprocess.run(command(on, *again), capture_output=True, text=True)
            lines = (run / "metrics.jsonl").read_text().splitlines() if ended.returncode == 0 else []
            right = len(lines) == 6 and (run / "summary.json").exists()
            if on == 2 and right:
                ours, whole = (load_file(each / "model.safetensors") for each in (run, undisturbed))
                right = ours.keys() == whole.keys() and all(
                    torch.equal(ours[key], whole[key]) for key in ours
                )
            if right:
                outcomes[list(outcomes)[2 - on]] += 1
            else:
                wrong.append(
                    f"kill {number}, resumed on {on}: exit code {ended.returncode}, {ended.stderr[-300:]}"
                )
    print(f"\nkilled at random moments: n = {kills}")
    for words, count in outcomes.items():
        print(f"{words}: {count} of {kills // 2 + (kills % 2 and words.startswith('resumed on 2'))}")
    print("\n".join(wrong))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", default=["masks", "throughput", "killed"], help="which; all by default"
    )
    parser.add_argument("--ranks", type=int, nargs="+", default=[2], help="processes")
    parser.add_argument("--seeds", type=int, default=3, help="networks of each criterion")
    parser.add_argument("--rounds", type=int, default=3, help="runs of which throughput is the median")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of kills")
    given = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(f"machine: {describe_machine(torch.device('cpu'))}")
    for part in given.parts:
        if part == "masks":
            for ranks in given.ranks:
                masks(ranks, given.seeds)
        elif part == "throughput":
            throughput([1, *given.ranks], given.rounds)
        elif part == "killed":
            killed(given.kills, given.seed)
        else:
            parser.error(f"parts are masks, throughput and killed; got {part}")


if __name__ == "__main__":
    main()
