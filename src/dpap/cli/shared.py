"""What the subcommands that train have in common."""

from collections.abc import Iterator
from contextlib import contextmanager

from jsonargparse import ArgumentParser


def add_quiet_flag(parser: ArgumentParser) -> None:
    """Give `parser` --quiet."""
    parser.add_argument("--quiet", action="store_true", help="only results and errors")


@contextmanager
def continued_by(command: str) -> Iterator[None]:
    """The message of an interruption ends with the command that goes on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"go on with: {command}") from None
