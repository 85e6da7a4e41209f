"""A run is worked on by one process at a time."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl


@contextmanager
def claim(path: Path, wait: bool = False) -> Iterator[bool]:
    """Whether the lock file `path` is this process's for as long as the block lasts; with `wait` it will be.

    The operating system gives the lock back when a process ends, however it ends: no stale locks. Where it has no such
    locks (Windows) everything is this process's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
        yield True
    finally:
        os.close(file)


def claimed(path: Path) -> bool:
    """Whether another process holds the lock file."""
    if not path.exists():
        return False
    with claim(path) as ours:
        return not ours


def locks(folder: Path) -> Path:
    """Where the lock files of a comparison lie."""
    return folder / ".locks"
