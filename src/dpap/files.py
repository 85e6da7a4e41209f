"""Files are written whole or not at all, and lie on the disk before anything builds on them."""

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path, *, keep: Path | None = None) -> Iterator[BinaryIO]:
    """A file to fill; where the block ends well it is flushed to the disk and takes the place of `path`.

    Args:
        path: of the file; what is there stays as it is until the new one is whole. A link stays, and what it leads to
            is replaced.
        keep: what was there gets this name.

    Raises:
        OSError: when it cannot be written; it names `path`.
    """
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    with naming(path, temporary):
        try:
            with temporary.open("x+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if keep is not None and path.exists():
                path.replace(keep)
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, UTF-8."""
    write_bytes(path, text.encode())


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files that are of use only together: all lie on the disk before the first replaces what was there.

    Raises:
        OSError: when one cannot be written, which it names; what was there is as it was.
    """
    with ExitStack() as stack:
        for path, content in contents.items():
            file = stack.enter_context(replacing(path))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def new_folder(path: Path, own: Set[str] = frozenset()) -> Iterator[Path]:
    """A folder to fill; where the block ends well it takes the place of `path`.

    Args:
        path: of the folder; what is there stays as it is until the new one is whole.
        own: names of files that may be there, and are replaced.

    Raises:
        FileExistsError: where something else is there, or it is the folder that this process runs in.
        OSError: when it cannot be written.
    """
    if path.name in ("", ".."):
        path = path.resolve()
    _check_replaceable(path, own)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (path.with_name(f".{path.name}.{secrets.token_hex(4)}.{end}") for end in ("part", "old"))
    try:
        with naming(path, temporary):
            temporary.mkdir()
            yield temporary
            _check_replaceable(path, own)  # what came meanwhile is not ours
            if path.exists():
                path.replace(old)
            temporary.replace(path)
            _sync_folder(path.parent)
    finally:
        if old.exists() and not path.exists():
            old.replace(path)
        for each in (temporary, old):
            shutil.rmtree(each, ignore_errors=True)


def _check_replaceable(path: Path, own: Set[str]) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise FileExistsError(f"{path} is there and is no folder: choose another name")
    if path.exists() and path.samefile(os.curdir):
        # whoever runs this would stay in a folder that has no name any more
        raise FileExistsError(
            f"{path} is the folder that this runs in, and cannot be replaced meanwhile: name another, such as one in it"
        )
    other = sorted(each.name for each in path.iterdir() if each.name not in own) if path.exists() else []
    if other and own:
        raise FileExistsError(
            f"{path} holds {', '.join(other[:5])}, which is of no earlier export: choose another folder"
        )
    if other:
        raise FileExistsError(
            f"{path} holds {', '.join(other[:5])}: choose another folder, or, where all of it is an earlier export, "
            "overwrite it"
        )


def append_text(path: Path, text: str) -> None:
    """Add text to a file, UTF-8, and flush it to the disk.

    Raises:
        OSError: when it cannot be written, or only in part; it names `path`.
    """
    is_new = not path.exists()
    with naming(path), path.open("ab", buffering=0) as file:
        rest = memoryview(text.encode())
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    if is_new:
        _sync_folder(path.parent)


@contextmanager
def naming(path: Path, *unnamed: Path) -> Iterator[None]:
    """An OSError that names no file, as of a full disk, or one of `unnamed`, names `path`."""
    try:
        yield
    except OSError as error:
        if error.filename is None or Path(error.filename) in unnamed:
            error.filename = str(path)
            if error.filename2 is not None:
                del error.filename2  # a second name of None would be shown
        raise


def _sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the file system can do that."""
    with suppress(OSError):  # Windows opens no folders, some file systems flush none
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
