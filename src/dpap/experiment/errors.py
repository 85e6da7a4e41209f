"""What a user can mend, told apart from what is a bug."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something in what the user asked for or gave; the message says what, and what to do."""


class Diverged(UserError):
    """The loss is not a finite number any more."""


@contextmanager
def blame(what: str) -> Iterator[None]:
    """Errors that come out of `what`, which only follows the user's wishes, are the user's to mend."""
    try:
        yield
    except (ValueError, TypeError, KeyError, OSError, ImportError) as error:
        raise UserError(f"{what}: {error}") from error
