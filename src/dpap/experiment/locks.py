"""Locks by which processes share a comparison, and keep out of each other's runs; the operating system releases them
however a process ends.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dpap.experiment.errors import UserError


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Holds the lock of a run folder, which exists.

    Raises:
        UserError: when another process writes in it.
    """
    try:
        acquired = FileLock(folder / ".lock").acquire(blocking=False)
    except Timeout as error:
        raise UserError(
            f"{folder} is being written by another process: wait for it, or choose another folder (--out)"
        ) from error
    except NotImplementedError as error:
        raise UserError(
            f"{folder}: its file system cannot lock files; choose a folder on another (--out)"
        ) from error
    with acquired:
        yield


def comparison_lock(folder: Path, name: str) -> FileLock:
    """The lock of that name for the comparison in `folder`, not acquired yet."""
    return FileLock(folder / ".locks" / name)


def is_held(lock: FileLock) -> bool:
    """Whether another lock object, in this process or another one, holds the same file."""
    if not Path(lock.lock_file).exists():
        return False  # no folder is made only to look
    try:
        with lock.acquire(blocking=False):
            return False
    except Timeout:
        return True
