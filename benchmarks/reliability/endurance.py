"""Prune, compact, save and load, again and again: does memory stay flat, and the number of hooks constant?

    python benchmarks/reliability/endurance.py --minutes 60

Each round builds a spiking network with convolutions, trains and prunes it for some epochs with removals, goes on from
its state in a second network, compacts that, saves it, loads it into a third, and detaches. What the process holds, and
how many hooks and Python objects there are, is written down every --every rounds, once garbage is collected; memory is
flat where the median of the last quarter is not above that of the second (the first warms up) by more than --tolerance.
"""

import argparse
import gc
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from trials import HERE, Trials, machine, small_run

import dpap
from dpap.models import NetworkConfig, build_network
from support.hooks import hooks as hooks_in

FEWEST = 8
"""Lines of results, of which quarters are compared."""
NETWORK = NetworkConfig(layers="8C3-BN-AvgPool2-16FC-10FC", neuron="lif", timesteps=2)


def learner() -> tuple[nn.Module, torch.optim.Optimizer, dpap.Pruner]:
    """A network, its optimizer and its pruner, the same in each round."""
    torch.manual_seed(0)
    model = build_network(NETWORK, (1, 8, 8), 10)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    config = dpap.PruningConfig(target=0.6, start_epoch=0, end_epoch=3, observe_every=1, compact="auto")
    return model, optimizer, dpap.Pruner(model, IMAGES[:8], optimizer, config)


def epoch(model: nn.Module, optimizer: torch.optim.Optimizer, pruner: dpap.Pruner) -> None:
    """Two steps, and an epoch's end."""
    for images, labels in zip(IMAGES.split(16), LABELS.split(16), strict=True):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    pruner.step()


def round_of(path: Path) -> tuple[int, int, float]:
    """Hooks while a network is pruned, hooks that are left, and the largest difference of what is loaded."""
    first = learner()
    attached = hooks_in(first[0])
    for _ in range(2):
        epoch(*first)
    model, optimizer, pruner = learner()
    pruner.load_state_dict(first[2].state_dict())
    model.load_state_dict(first[0].state_dict())
    optimizer.load_state_dict(first[1].state_dict())
    epoch(model, optimizer, pruner)
    pruner.compact()
    dpap.save(model, path)
    small = dpap.load(path, build_network(NETWORK, (1, 8, 8), 10)).eval()
    pruner.detach()
    first[2].detach()
    with torch.no_grad():
        difference = float((model.eval()(IMAGES) - small(IMAGES)).abs().max())
    return attached, hooks_in(model) + hooks_in(small) + hooks_in(first[0]), difference


def megabytes() -> float:
    """Memory that the process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def main(words: list[str] | None = None) -> int:
    """Go round until the time is over."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="how long")
    parser.add_argument("--every", type=int, default=4, help="rounds between two lines of results")
    parser.add_argument(
        "--tolerance", type=float, default=0.02, help="growth of memory that is taken as none"
    )
    parser.add_argument(
        "--out", default=str(HERE / "results" / "endurance.jsonl"), help="file of the results"
    )
    given = parser.parse_args(words)
    path = Path(given.out)
    path.unlink(missing_ok=True)
    trials = Trials(path)
    end, rounds = time.monotonic() + 60 * given.minutes, 0
    with tempfile.TemporaryDirectory() as name:
        while time.monotonic() < end:
            attached, left, difference = round_of(Path(name) / "small.safetensors")
            rounds += 1
            if rounds % given.every == 0:
                gc.collect()
                line = {
                    "rounds": rounds,
                    "megabytes": round(megabytes(), 1),
                    "hooks": attached,
                    "hooks_left": left,
                    "objects": len(gc.get_objects()),
                    "difference": difference,
                }
                trials.add(line)
                print(*(f"{key} {value}" for key, value in line.items()), sep="  ", flush=True)
    return 0 if judge(trials.done, given.tolerance) else 1


def judge(lines: list[dict[str, Any]], tolerance: float) -> bool:
    """Print what came of it; whether memory was flat, hooks constant and every loaded network the saved one."""
    if len(lines) < FEWEST:
        print(
            f"{len(lines)} lines of results: expected {FEWEST} at least, give more --minutes or fewer rounds --every"
        )
        return False
    quarter = len(lines) // 4
    parts = [lines[quarter : 2 * quarter], lines[-quarter:]]
    growths = {}
    for what in ("megabytes", "objects"):
        before, after = (statistics.median(line[what] for line in part) for part in parts)
        growths[what] = after / before - 1
        print(f"{what}: {before:,.1f} in the second quarter, {after:,.1f} in the last ({growths[what]:+.2%})")
    hooks = {(line["hooks"], line["hooks_left"]) for line in lines}
    print(f"{lines[-1]['rounds']} rounds; hooks attached, and left after detach(): {sorted(hooks)}")
    print(machine())
    exact = all(line["difference"] == 0 for line in lines)
    return exact and len(hooks) == 1 and max(growths.values()) <= tolerance


def _digits() -> tuple[Tensor, Tensor]:
    from dpap.data import load_data

    return next(load_data(small_run(Path()).data).train.batches(32))


IMAGES, LABELS = _digits()

if __name__ == "__main__":
    sys.exit(main())
