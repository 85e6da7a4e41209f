"""Locks by which processes share a comparison; the operating system releases them however a process ends."""

from pathlib import Path

from filelock import FileLock, Timeout


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
