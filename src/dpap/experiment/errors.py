"""Errors that a user can mend, as opposed to bugs."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

MAKE_ROOM = "make room on the disk"
NO_RIGHT = "give this user the right to, or choose another place"
REMEDIES = {
    errno.ENOSPC: MAKE_ROOM,
    errno.EDQUOT: MAKE_ROOM,
    errno.EFBIG: MAKE_ROOM,
    errno.EACCES: NO_RIGHT,
    errno.EPERM: NO_RIGHT,
    errno.EROFS: "choose a place that can be written",
    errno.ENOENT: "put it back, or give another path",
    errno.EEXIST: "a file is where a folder should be: move it away, or give another path",
    errno.ENOTDIR: "give a path whose folders are none of them files",
    errno.EISDIR: "move the folder away, or give another path",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.EMFILE: "close other files (ulimit -n)",
    errno.EPIPE: "let what reads it run to its end",
}
"""What to do about errors of the file system."""
OF_THE_PATH = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
"""Errors of a path that was chosen wrongly: the same command would meet them again."""


class UserError(Exception):
    """A mistake in what the user asked for or gave; the message names it, and what to do."""


class Diverged(UserError):
    """The loss is not a finite number any more."""


@contextmanager
def blame(what: str) -> Iterator[None]:
    """Turns errors within the block into UserErrors that name `what`: it only follows the user's settings."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{what}: {explained(error)}") from error
    except KeyError as error:
        raise UserError(f"{what}: {error} is missing") from error
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"{what}: {error}") from error


def explained(error: OSError) -> str:
    """An error of the file system in one line: the path, what happened, what to do."""
    if error.strerror is None:
        return str(error)  # raised with words of its own
    path = "the output" if error.filename is None else error.filename
    return f"{path}: {error.strerror}; {REMEDIES.get(error.errno or 0, 'check the disk')}"
