"""Published data sets from the network: whole and checked, or not at all."""

import hashlib
import os
import secrets
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from dpap.files import naming

CHUNK = 1 << 20
SECONDS = 30
"""So long a server may say nothing."""
OUT_OF_RANGE = 416
Progress = Callable[[str, int, int | None], None]
"""Gets the name of a file, how many of its bytes are there, and of how many where that is known."""


class DownloadError(Exception):
    """A file could not be had; the message gives every address that was tried, and why it failed."""


@dataclass(frozen=True)
class Remote:
    """A published file.

    Attributes:
        path: where it is put, below the root.
        md5: its published checksum.
        urls: where it is to be had, the best first.
        folder: of an archive: the folder below the root that it is unpacked to, and then removed; it has the name of
            the folder in the archive that is taken.
    """

    path: str
    md5: str
    urls: tuple[str, ...]
    folder: str | None = None


def remotes(folder: str, files: dict[str, str], mirrors: Sequence[str]) -> tuple[Remote, ...]:
    """Files that lie beside each other: their names and checksums, and the addresses of the folders that hold them."""
    return tuple(
        Remote(f"{folder}/{name}", md5, tuple(f"{mirror}/{name}" for mirror in mirrors))
        for name, md5 in files.items()
    )


def download(files: Sequence[Remote], root: Path, progress: Progress) -> list[str]:
    """Put files below a folder; what is there already is left as it is.

    What was interrupted goes on where it stopped.

    Args:
        files: of a data set.
        root: is made where it is not there.
        progress: is called now and then.

    Returns:
        What was done, a line for each file.

    Raises:
        DownloadError: when no address gives a file, or none gives the published one.
        ValueError: when an archive does not hold what is expected.
        OSError: when a file cannot be written; what is there of it stays, to go on with.
    """
    done = []
    for file in files:
        place = root / (file.folder or file.path)
        if place.exists():
            done.append(f"{place} is there already")
            continue
        path = root / file.path
        given = path.exists()
        if not given:
            path.parent.mkdir(parents=True, exist_ok=True)
            _fetch(file, path, progress)
        elif (found := _md5(path)) != file.md5:
            raise ValueError(
                f"{path} is not the published file: its MD5 is {found}, not {file.md5}; remove it"
            )
        if file.folder is not None:
            _unpack(path, place)
            if not given:
                path.unlink()
        done.append(str(place))
    return done


def _fetch(file: Remote, path: Path, progress: Progress) -> None:
    part = path.with_name(f".{path.name}.part")
    failed = []
    for url in file.urls:
        try:
            _receive(url, part, path.name, progress)
        except _Unreachable as error:
            failed.append(f"{url}: {error}")
            continue
        found = _md5(part)
        if found == file.md5:
            part.replace(path)
            return
        part.unlink()
        failed.append(f"{url}: not the published file: its MD5 is {found}, not {file.md5}; it was removed")
    tried = "\n  ".join(failed)
    raise DownloadError(
        f"could not download {path.name}:\n  {tried}\nis there a network? The same command goes on where it stopped; "
        f"or put the file at {path} yourself"
    )


class _Unreachable(Exception):
    """An address does not answer as it should.

    Attributes:
        code: the status that it answers with, where it does.
    """

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.code = code


@contextmanager
def _answering() -> Iterator[None]:
    """Errors of the network within the block, and no others."""
    try:
        yield
    except HTTPError as error:
        error.close()
        raise _Unreachable(f"{error.code} {error.reason}", error.code) from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise _Unreachable(
            getattr(reason, "strerror", None) or str(reason) or type(error).__name__
        ) from error


def _receive(url: str, part: Path, name: str, progress: Progress) -> None:
    """Add to `part` what it lacks."""
    begin = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "dpap", "Accept-Encoding": "identity"}
    if begin:
        headers["Range"] = f"bytes={begin}-"
    try:
        with _answering():
            answer = urlopen(Request(url, headers=headers), timeout=SECONDS)
    except _Unreachable as error:
        if begin and error.code == OUT_OF_RANGE:
            return  # all of it is there
        raise
    with answer:
        goes_on = begin and answer.headers.get("Content-Range", "").startswith(f"bytes {begin}-")
        have = begin if goes_on else 0
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        with naming(part), part.open("ab" if goes_on else "wb") as file:
            while True:
                with _answering():
                    chunk = answer.read(CHUNK)
                if not chunk:
                    break
                file.write(chunk)
                have += len(chunk)
                progress(name, have, total)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and have < total:
        raise _Unreachable(f"ended after {have:,} of {total:,} bytes")


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack the files of the archive's folder of that name, whole or not at all."""
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    found = 0
    try:
        for name, content in _members(archive):
            path = PurePosixPath(name)
            if path.parts[:1] != (folder.name,) or ".." in path.parts:
                continue
            target = temporary.joinpath(*path.parts[1:])
            target.parent.mkdir(parents=True, exist_ok=True)
            with naming(target), content, target.open("wb") as file:
                shutil.copyfileobj(content, file)
            found += 1
        if not found:
            raise ValueError(f"{archive} must hold files in a folder {folder.name}; it has none")
        temporary.replace(folder)
    finally:
        with suppress(OSError):
            shutil.rmtree(temporary)


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Names and contents of the files in an archive; links and the like are left out."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                if not entry.is_dir():
                    yield entry.filename, opened.open(entry)
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            if content is not None:
                yield member.name, content
