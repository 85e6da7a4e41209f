"""The parts of a checkpoint, which is a zip archive, before they are read."""

import zipfile
from pathlib import Path


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
