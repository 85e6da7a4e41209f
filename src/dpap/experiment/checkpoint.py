"""Everything a run needs to go on as if it had never stopped.

No state of random generators is in it: every epoch is seeded by `epoch_seed`, so it is the same whatever ran before.
Nor is the learning rate: it is a function of the step (schedule.py).

A checkpoint is an archive (archive.py) with a checksum. Format 1, of dpap 0.1.0, had none.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dpap.archive import DamagedArchive, read_archive, write_archive
from dpap.experiment.errors import UserError
from dpap.experiment.run_folder import RunFolder
from dpap.files import replacing
from dpap.pruning.distributed import RanksError

FORMAT = 2
READ = (1, 2)
PARTS = {"epoch", "config", "model", "optimizer", "pruner"}


class Damaged(UserError):
    """A checkpoint is not what was written."""


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of everything random in one epoch of a run."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint32)[0])


def write_checkpoint(path: Path, state: dict[str, Any], *, previous: Path | None = None) -> None:
    """Write tensors, numbers, strings, lists and dicts; the file before stays until this one is whole.

    Args:
        path: of the checkpoint.
        state: what `read_checkpoint` returns.
        previous: the checkpoint that was there gets this name.
    """
    write_archive(path, {"format": FORMAT, **state}, previous=previous)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote, on the CPU and without running any code from the file.

    Raises:
        UserError: when the file is not there, is damaged or was written by another version.
    """
    if not path.is_file():
        raise UserError(f"no checkpoint {path}: nothing to go on from; start the run again with --overwrite")
    try:
        state, sealed = read_archive(path)
    except DamagedArchive as error:
        raise Damaged(f"{path} is not a readable checkpoint: {error}") from error
    found = state.get("format") if isinstance(state, dict) else type(state).__name__
    if found not in READ:
        raise UserError(f"{path} has checkpoint format {found}; this version of dpap reads 1 and 2")
    if found != 1 and not sealed:
        raise Damaged(f"{path} is not a readable checkpoint: it was changed, for it has no checksum")
    return dict(state)


def read_last(folder: RunFolder, message: Callable[[str], None]) -> dict[str, Any] | None:
    """The state after the last whole epoch, or the one before where that is damaged; None before the first.

    The one that is used is the last one then, so that the next does not take the place of the only good one.

    Args:
        folder: of the run.
        message: gets what is damaged.

    Raises:
        UserError: when all are damaged.
    """
    damaged: list[str] = []
    for path in (folder.checkpoint, folder.previous):
        if path.exists():
            try:
                state = read_checkpoint(path)
            except Damaged as error:
                damaged.append(str(error))
                continue
            if missing := PARTS - state.keys():
                raise UserError(f"{path} is no checkpoint of a run: it has no {', '.join(sorted(missing))}")
            if path != folder.checkpoint:
                path.replace(folder.checkpoint)
            for why in damaged:
                message(f"{why}; going on from the one before")
            return state
    if damaged:
        raise UserError(f"{'; '.join(damaged)}; no checkpoint is left: start the run again with --overwrite")
    return None


@contextmanager
def belonging(path: Path) -> Iterator[None]:
    """Turns errors within the block into UserErrors: what a whole checkpoint at `path` holds does not fit its run.

    It raises almost anything there, for it may hold anything.
    """
    try:
        yield
    except (UserError, OSError, RanksError):
        raise
    except Exception as error:
        raise UserError(
            f"{path} is not the checkpoint of this run ({type(error).__name__}: {error}): put back the one that the "
            "run wrote, or start the run again with --overwrite"
        ) from error


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copy a checkpoint, whole or not at all."""
    with replacing(target) as file, source.open("rb") as whole:
        shutil.copyfileobj(whole, file)
