"""Everything a run needs to go on as if it had never stopped.

No state of random generators is in it: every epoch is seeded by `epoch_seed`, so it is the same whatever ran before.
Nor is the learning rate: it is a function of the step (schedule.py).
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpap.experiment.archive import check_parts
from dpap.experiment.errors import UserError
from dpap.experiment.run_folder import with_replacement

FORMAT = 1


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of everything random in one epoch of a run."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint32)[0])


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers, strings, lists and dicts; the file before stays until this one is whole."""
    with_replacement(path, lambda temporary: torch.save({"format": FORMAT, **state}, temporary))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote, on the CPU and without running any code from the file.

    Raises:
        UserError: when the file is not there, is damaged or was written by another version.
    """
    if not path.is_file():
        raise UserError(f"no checkpoint {path}: nothing to go on from; start the run again with --overwrite")
    try:
        check_parts(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes these two raise almost anything
        raise UserError(f"{path} is not a readable checkpoint: {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise UserError(f"{path} has checkpoint format {found}; this version of dpap reads {FORMAT}")
    return state


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copy a checkpoint, whole or not at all."""
    with_replacement(target, lambda temporary: shutil.copyfile(source, temporary))
