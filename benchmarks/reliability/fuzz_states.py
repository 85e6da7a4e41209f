"""States of pruners, and networks beside a script that needs no dpap."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from fuzz_kinds import GOOD, Kind, of_seeds
from fuzz_runs import other_state
from torch import Tensor, nn
from trials import script_of

import dpap

EXAMPLE = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
CONFIGS = {
    "default": dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=3),
    "released": dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=3, criterion="released"),
    "operations": dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=3, target_of="synaptic_operations"),
}


def _learner(name: str) -> tuple[nn.Module, dpap.Pruner]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))
    return model, dpap.Pruner(model, EXAMPLE, config=CONFIGS[name])


def _epoch(model: nn.Module, pruner: dpap.Pruner) -> None:
    model(EXAMPLE).square().sum().backward()
    pruner.step()


@cache
def _saved(name: str, compact: bool) -> dict[str, Any]:
    model, pruner = _learner(name)
    for _ in range(2):
        _epoch(model, pruner)
    if compact:
        pruner.compact()
    return pruner.state_dict()


def pruner_state() -> Kind:
    """A state for `Pruner.load_state_dict`, made from a file of numbers; the pruner has to go on from it."""

    def read(folder: Path) -> object:
        seed = (folder / "seed").read_bytes()
        random = np.random.default_rng(list(seed))
        name = sorted(CONFIGS)[random.integers(len(CONFIGS))]
        state = _saved(name, bool(random.random() < 0.5))
        model, pruner = _learner(name)
        pruner.load_state_dict(state if seed == GOOD else other_state(state, random))
        _epoch(model, pruner)
        pruner.compact()
        with torch.no_grad():
            return model(EXAMPLE)

    return of_seeds(read, ("this state", "this is no state", "of a layer's statistics"))


def plain() -> Kind:
    """Weights and widths beside the script that reads them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.3), nn.Linear(8, 3)).eval()
    with TemporaryDirectory() as folder:
        dpap.save(model, Path(folder) / "model.safetensors", "plain")
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    script = files.pop("model_builder.py")
    with torch.no_grad():
        right = model(EXAMPLE)

    def read(folder: Path) -> Tensor:
        path = folder / "model_builder.py"
        if not path.exists():
            path.write_bytes(script)
        with torch.no_grad():
            found: Tensor = script_of(path).load()(EXAMPLE)
        if not torch.equal(found, right):
            raise AssertionError("another network than was written")
        return found

    return Kind(files, read)


KINDS: dict[str, Callable[[], Kind]] = {"pruner state": pruner_state, "plain": plain}
