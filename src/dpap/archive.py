"""States, of tensors and plain values, in files: what is damaged is found when it is read, and no code in it runs.

A file is one of `torch.save`, a zip archive, with the SHA-256 of all bytes before it as the archive's comment. Of one
without a comment the checksums are checked that every archive has of its parts.
"""

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from dpap.files import naming, replacing

MARK = b"dpap sha256 "
COMMENT = len(MARK) + hashlib.sha256().digest_size * 2


class DamagedArchive(ValueError):
    """A file does not hold what was written."""


def write_archive(path: Path, state: Any, *, previous: Path | None = None) -> None:
    """Write tensors, numbers, strings, lists and dicts; the file before stays until this one is whole.

    Args:
        path: of the file.
        state: what `read_archive` returns.
        previous: the file that was there gets this name.
    """
    with replacing(path, keep=previous) as file:
        torch.save(state, file)
        file.seek(-2, os.SEEK_END)
        file.write(COMMENT.to_bytes(2, "little"))  # an archive ends with the length of its comment
        checksum = _checksum(file, file.tell())
        file.write(MARK + checksum)


def read_archive(path: Path) -> tuple[Any, bool]:
    """Read what `write_archive` or `torch.save` wrote, on the CPU; and whether it has a checksum.

    Raises:
        DamagedArchive: when it is something else, or was changed.
    """
    with naming(path), path.open("rb") as file:
        sealed = _is_sealed(file)
        file.seek(0)
        try:
            check_parts(path)
            if not sealed:
                _check_unsealed(file)
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True), sealed
        except Exception as error:  # a damaged file makes these two raise almost anything
            raise DamagedArchive(str(error)) from error


def _check_unsealed(file: BinaryIO) -> None:
    """Check the checksums of an archive's parts; a comment that is no checksum, or not a whole one, was damaged."""
    archive = zipfile.ZipFile(file)
    if archive.comment:
        raise ValueError("it was changed, for its checksum is damaged")
    if (broken := archive.testzip()) is not None:
        raise ValueError(f"the checksum of its part {broken} does not fit")


def check_parts(path: Path) -> None:
    """Check that an archive holds no more than it is long, as one that `torch.save` wrote: its parts are not packed.

    Raises:
        ValueError: where it holds more: reading it might fill the memory.
        zipfile.BadZipFile: where it is no archive.
    """
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    if (
        any(part.compress_type != zipfile.ZIP_STORED for part in parts)
        or sum(p.file_size for p in parts) > size
    ):
        raise ValueError("its parts would unpack to more than the file has: dpap did not write it")


def _is_sealed(file: BinaryIO) -> bool:
    """Whether a file has a checksum.

    Raises:
        DamagedArchive: when its checksum does not fit.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - COMMENT))
    comment = file.read()
    if not comment.startswith(MARK):
        return False
    if _checksum(file, size - COMMENT) != comment[len(MARK) :]:
        raise DamagedArchive("it was changed or damaged after it was written, its checksum does not fit")
    return True


def _checksum(file: BinaryIO, size: int) -> bytes:
    """SHA-256 of the first bytes of a file, in hexadecimal digits; the file is left at their end."""
    digest = hashlib.sha256()
    file.seek(0)
    while size > 0 and (block := file.read(min(size, 1 << 20))):
        digest.update(block)
        size -= len(block)
    return digest.hexdigest().encode()
