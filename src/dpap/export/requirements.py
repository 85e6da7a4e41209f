"""Packages of the extras, which nothing else needs."""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType


def to_install(extra: str) -> str:
    """What installs the packages of an extra."""
    return f'pip install ".[{extra}]" in a copy of the repository'


def required(extra: str, *names: str) -> list[ModuleType]:
    """The modules of those names.

    Raises:
        ImportError: with what to install, where one is absent.
    """
    try:
        return [import_module(name) for name in names]
    except ImportError as error:
        raise ImportError(f"this export needs {error.name}: {to_install(extra)} ({error})") from error


def installed(name: str) -> bool:
    """Whether a package is there."""
    try:
        return find_spec(name) is not None
    except ValueError:
        return False
