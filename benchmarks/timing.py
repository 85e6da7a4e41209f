"""What the benchmarks share: a training step, alternating timing, peak memory, the machine, a table and a JSON file."""

import argparse
import ctypes
import gc
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpap.experiment.machine import describe_machine, keep_freed_memory
from dpap.experiment.tables import text_table
from dpap.metrics.alternating import alternate as alternate
from dpap.metrics.alternating import compared as compared
from dpap.metrics.alternating import synchronise


def training_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    bfloat16: bool = False,
) -> Tensor:
    """Forward, backward and the optimizer's step; returns the logits."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
        logits = network(images)
    optimizer.zero_grad(set_to_none=True)
    F.cross_entropy(logits.float(), labels).backward()
    optimizer.step()
    return logits


def random_batch(batch: int, shape: tuple[int, int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Images [B, C, H, W] and labels [B] of ten classes, always the same."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, *shape, generator=generator)
    labels = torch.randint(10, (batch,), generator=generator)
    return images.to(device), labels.to(device)


def mover(tensor: Tensor) -> Callable[[], None]:
    """A function that moves 24 bytes for each element of a float32 tensor, as a neuron's forward and backward must."""
    target = torch.empty_like(tensor)

    def move() -> None:
        torch.add(tensor, tensor, out=target)  # 4 bytes in, 4 out
        torch.add(tensor, target, out=target)  # 8 bytes in, 4 out
        target.zero_()  # 4 bytes out

    return move


def peak_bytes(build: Callable[[], Callable[[], object]], device: torch.device, steps: int = 4) -> int:
    """Memory of this process at its peak beyond that before `build()`, the result of which is called `steps` times.

    On a CPU it is resident memory (Linux, glibc), so call this in a fresh process that has loaded its libraries; on
    a GPU, what torch allocated. What `build` itself frees again does not count.
    """
    before = _held(device)
    step = build()
    _held(device)
    for _ in range(steps):
        step()
    synchronise(device)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM")
    return peak - before


def _held(device: torch.device) -> int:
    """Bytes held now, from which the high-water mark rises anew."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


def _resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}; memory is measured on Linux")


def in_a_process(arguments: argparse.Namespace, *own: str) -> Any:
    """The JSON that this script prints when it is called with its `own` arguments and the settings of this process."""
    settings = ["--device", arguments.device, "--threads", str(arguments.threads)]
    if arguments.keep_memory:
        settings.append("--keep-memory")
    command = [sys.executable, sys.argv[0], *own, *settings]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def set_up(arguments: argparse.Namespace) -> torch.device:
    """Apply the arguments to this process; returns the device."""
    torch.set_num_threads(arguments.threads)
    if arguments.keep_memory:
        keep_freed_memory()
    return torch.device(arguments.device)


def arguments_of(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """A parser of what all benchmarks take."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads of torch")
    parser.add_argument("--rounds", type=int, default=rounds, help="measured runs of each candidate")
    parser.add_argument(
        "--keep-memory", action="store_true", help="as `dpap train` does, for all candidates alike"
    )
    parser.add_argument("--out", default="benchmarks/results", help="folder of the JSON file")
    return parser


def report(name: str, arguments: argparse.Namespace, results: dict[str, Any], tables: Iterable[str]) -> None:
    """Print the tables and write OUT/NAME.json with machine, versions and command."""
    machine = describe_machine(torch.device(arguments.device))
    for package in ("dpap", "spikingjelly", "snntorch"):
        try:
            machine[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            machine[package] = None
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    for table in tables:
        print(f"\n{table}")
    path = Path(arguments.out) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"command": [Path(sys.executable).name, *sys.argv], "machine": machine, **results}
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"\n{path}")


def ratio_table(title: str, rows: dict[str, dict[str, float]]) -> str:
    """Candidates, one a line, with their milliseconds, ratios and whatever else each has."""
    extra = [
        key for key in next(iter(rows.values())) if key not in ("milliseconds", "ratio", "low", "high", "n")
    ]
    lines = [
        [
            name,
            f"{row['milliseconds']:.1f}",
            f"{row['ratio']:.2f}",
            f"{row['low']:.2f}-{row['high']:.2f}",
            f"{row['n']}",
            *(f"{row[key]:,.0f}" for key in extra),
        ]
        for name, row in rows.items()
    ]
    return text_table([title, "ms", "ratio", "quartiles", "n", *extra], lines)
