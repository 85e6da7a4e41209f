"""The command `dpap`: parses, calls, prints. Each subcommand is a module here, imported when it is called."""

import os
import shlex
import signal
import sys
import threading
import types
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from jsonargparse import ArgumentParser

from dpap.cli.commands import COMMANDS
from dpap.experiment.errors import UserError, explained
from dpap.experiment.parser import Parser

DONE, USER, INTERRUPTED = 0, 2, 130


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 2 the user can mend it, 130 interrupted.

    What the file system refuses (no room, no right, a folder that vanished) the user can mend. A bug is not caught: it
    keeps its traceback.
    """
    given = sys.argv[1:] if argv is None else argv
    before = signal.signal(signal.SIGTERM, _interrupt) if _in_main_thread() else None
    try:
        parser, subparser = _parsers(given)
        parsed = parser.parse_args(given)
        name = parsed.subcommand
        _module(name).run(subparser, parsed[name], shlex.join(["dpap", *given]))
        sys.stdout.flush()
    except SystemExit as stop:  # --help, --version, or flags that argparse has explained
        return int(stop.code or DONE)
    except UserError as error:
        print(f"dpap: {error}", file=sys.stderr)
        return USER
    except OSError as error:
        print(f"dpap: {explained(error)}", file=sys.stderr)
        return USER
    except KeyboardInterrupt as stop:
        print("\ndpap: interrupted", *stop.args, sep="; " if stop.args else "", file=sys.stderr)
        return INTERRUPTED
    finally:
        _give_up_output()
        if before is not None:
            signal.signal(signal.SIGTERM, before)
    return DONE


def _give_up_output() -> None:
    """Where the output cannot be written, Python does not try again when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    raise KeyboardInterrupt


def _parsers(given: Sequence[str]) -> tuple[ArgumentParser, ArgumentParser]:
    """The parser of the command, and that of the subcommand in `given`: the only one that has its flags."""
    parser = Parser(
        prog="dpap",
        description="Make a neural network smaller and faster while it learns: developmental plasticity-inspired "
        "adaptive pruning. Begin with `dpap demo`.",
    )
    parser.add_argument("--version", action="version", version=f"dpap {version('dpap')}")
    subcommands = parser.add_subcommands(required=True, metavar="COMMAND")
    # the command itself has no flag that takes a value, so the first name is the subcommand
    called = next((word for word in given if word in COMMANDS), None)
    subparser = parser
    for name, (takes, text, example) in COMMANDS.items():
        made = Parser(usage=f"dpap {name} {takes}", description=f"{text} Example: {example}")
        if name == called:
            subparser = made
            _module(name).add_arguments(made)
        subcommands.add_subcommand(name, made, help=text)
    return parser, subparser


def _module(name: str) -> types.ModuleType:
    return import_module(f"dpap.cli.{name}")
