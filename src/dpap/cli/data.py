"""`dpap data`."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

from jsonargparse import ArgumentParser, Namespace

from dpap.data import DataConfig, check_data, list_datasets
from dpap.data.download import DownloadError, download
from dpap.data.registry import DATASETS
from dpap.experiment.errors import UserError, blame
from dpap.spelling import suggestion


def add_arguments(parser: ArgumentParser) -> None:
    """Give `parser` the subcommand's flags."""
    parser.add_argument(
        "set", nargs="?", help="name of a data set, or package.module:factory; none lists them"
    )
    parser.add_argument(
        "--download",
        action="store_true",
        help="first put its published files below the root, where they lack",
    )
    parser.add_class_arguments(DataConfig, None, skip={"name"})


def run(parser: ArgumentParser, given: Namespace, command: str) -> None:
    """List the data sets, or download and check one."""
    if given.set is None and not given.download:
        for source in list_datasets():
            print(f"{source.name}\n  {source.what}\n  {source.homepage}\n  {source.layout}")
        return
    values = {field.name: given[field.name] for field in fields(DataConfig) if field.name != "name"}
    with blame("the data"):
        config = DataConfig(name=given.set or "", **values)
    if given.download:
        _download(config)
    with _data():
        text = check_data(config)
    print(text)


@contextmanager
def _data() -> Iterator[None]:
    """Errors of the data name flags as this subcommand has them: --root, not data.root."""
    try:
        with blame("the data"):
            yield
    except UserError as error:
        raise UserError(re.sub(r"\bset data\.(\w+)", r"set --\1", str(error))) from error


def _download(config: DataConfig) -> None:
    known = [name for name, source in DATASETS.items() if source.files]
    source = DATASETS.get(config.name)
    if source is None or not source.files:
        where = "" if source is None else f"; {source.advice}"
        raise UserError(
            f"--download is for one of {', '.join(known)}; got {config.name!r}{suggestion(config.name, known)}{where}"
        )
    with _data():
        root = source.root(config)
    try:
        with blame("the download"):
            done = download(source.files, root, _show)
    except DownloadError as error:
        raise UserError(str(error)) from error
    print("\n".join(done))


def _show(name: str, have: int, total: int | None) -> None:
    """How far a file is, on a terminal."""
    if sys.stderr.isatty():
        share = "" if total is None else f" of {total / 1e6:.1f}"
        end = "\n" if have == total else ""
        print(f"\r{name}: {have / 1e6:.1f}{share} MB", end=end, file=sys.stderr, flush=True)
