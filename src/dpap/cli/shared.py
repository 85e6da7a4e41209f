"""What several subcommands have in common."""

import itertools
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from dpap.experiment.config import ExperimentConfig, refuse_imports
from dpap.experiment.errors import OF_THE_PATH, UserError, explained

MADE = "folders that lack are made"
"""What becomes of a file's path, for the help of flags that name one."""


def add_quiet_flag(parser: ArgumentParser) -> None:
    """Give `parser` --quiet."""
    parser.add_argument("--quiet", action="store_true", help="only results and errors")


@contextmanager
def continued_by(command: str) -> Iterator[None]:
    """The message of an interruption, or of a file system that refuses, ends with the command that goes on."""
    try:
        yield
    except OSError as error:
        then = "" if error.errno in OF_THE_PATH else f"; then go on with: {command}"
        raise UserError(f"{explained(error)}{then}") from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"go on with: {command}") from None


def typed_flags(parser: ArgumentParser, command: str) -> list[str]:
    """The flags in a command line, by their whole names: the parser takes their beginnings too."""
    known = [option for action in parser._actions for option in action.option_strings]
    words = [word.partition("=")[0] for word in shlex.split(command)[2:] if word.startswith("--")]
    return [
        word if word in known else next((flag for flag in known if flag.startswith(word)), word)
        for word in words
    ]


def check_output(flag: str, path: Path) -> None:
    """Check that a file can be written there, before any work is done for it; `make_room` then makes its folder.

    Raises:
        UserError: where it cannot.
    """
    if path.is_dir():
        raise UserError(f"{flag}: {path} is a folder; give the name of a file, in it or elsewhere")
    check_place(flag, path)


def check_place(flag: str, path: Path) -> None:
    """Check that a file or folder of that name can be made.

    Raises:
        UserError: where it cannot.
    """
    there = next(each for each in path.absolute().parents if each.exists())
    if not there.is_dir():
        raise UserError(f"{flag}: {there} is a file, and cannot hold {path.name}; give another path")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(
            f"{flag}: nothing can be written into {there}; give this user the right to, or another path"
        )


def check_folder(path: Path, what: str) -> None:
    """Check that a folder can be there, of files that `what` names.

    Raises:
        UserError: where it cannot.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file, and {what} is a folder: choose another name (--out)")
    if not path.exists():
        check_place("--out", path)


def make_room(path: Path) -> Path:
    """The path of a file, the folders of which are made where they lack."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


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
