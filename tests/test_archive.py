"""Archives that unpack to more than they are long are not read."""

import zipfile
from pathlib import Path

import pytest
import torch

from dpap.archive import check_parts
from dpap.experiment.checkpoint import read_checkpoint
from dpap.experiment.errors import UserError


def test_what_torch_saves_is_read(tmp_path: Path) -> None:
    torch.save({"a": torch.rand(9), "b": [1, "c"]}, tmp_path / "good.pt")
    check_parts(tmp_path / "good.pt")


@pytest.mark.parametrize("repeated", [False, True])
def test_archives_that_unpack_to_more_are_refused(tmp_path: Path, repeated: bool) -> None:
    path = tmp_path / "checkpoint.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data/0", bytes(1 << 20), zipfile.ZIP_STORED if repeated else zipfile.ZIP_DEFLATED)
        if repeated:  # many names for one part
            archive.filelist += archive.filelist * 9
            archive.start_dir = archive.fp.tell() if archive.fp else 0
    with pytest.raises(
        UserError, match=r"checkpoint\.pt is not a readable checkpoint: its parts would unpack"
    ):
        read_checkpoint(path)
