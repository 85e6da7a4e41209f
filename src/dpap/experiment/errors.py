"""Errors that a user can mend, as opposed to bugs."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake in what the user asked for or gave; the message names it, and what to do."""


class Diverged(UserError):
    """The loss is not a finite number any more."""


@contextmanager
def blame(what: str) -> Iterator[None]:
    """Turns errors within the block into UserErrors that name `what`: it only follows the user's settings."""
    try:
        yield
    except (ValueError, TypeError, KeyError, OSError, ImportError) as error:
        raise UserError(f"{what}: {error}") from error
