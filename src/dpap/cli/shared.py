"""What the subcommands that train have in common."""

import itertools
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from jsonargparse import ArgumentParser, Namespace

from dpap.experiment.config import ExperimentConfig, refuse_imports
from dpap.experiment.errors import UserError, explained


def add_quiet_flag(parser: ArgumentParser) -> None:
    """Give `parser` --quiet."""
    parser.add_argument("--quiet", action="store_true", help="only results and errors")


@contextmanager
def continued_by(command: str) -> Iterator[None]:
    """The message of an interruption, or of a file system that refuses, ends with the command that goes on."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{explained(error)}; then go on with: {command}") from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"go on with: {command}") from None


def add_imports_flag(parser: ArgumentParser) -> None:
    """Give `parser` --allow-imports."""
    parser.add_argument(
        "--allow-imports",
        action="store_true",
        help="import the data set of its own that a file or run folder names; that runs code of whoever wrote it",
    )


def check_imports(config: ExperimentConfig, given: Namespace, command: str) -> None:
    """Let code be imported that the command line itself names, and other code only with --allow-imports.

    Raises:
        UserError: when the configuration names other code.
    """
    if not may_import(config.data.name, given, command):
        refuse_imports(config, "the configuration")


def may_import(name: str, given: Namespace, command: str) -> bool:
    """Whether a data set's code may be imported: the command line allows all, or has its name."""
    words = shlex.split(command)
    typed = [word.partition("=")[2] for word in words if word.startswith("--data.name=")]
    typed += [after for word, after in itertools.pairwise(words) if word == "--data.name"]
    return given.allow_imports or name in typed
