"""Archives that were changed, or unpack to more than they are long, are not read."""

import zipfile
from pathlib import Path

import pytest
import torch

from dpap.archive import DamagedArchive, check_parts, read_archive, write_archive
from dpap.experiment.checkpoint import read_checkpoint
from dpap.experiment.errors import UserError


def test_what_torch_saves_is_read(tmp_path: Path) -> None:
    torch.save({"a": torch.rand(9), "b": [1, "c"]}, tmp_path / "good.pt")
    check_parts(tmp_path / "good.pt")


def test_what_is_written_is_read_and_damage_is_found(tmp_path: Path) -> None:
    path, old = tmp_path / "state.pt", tmp_path / "old.pt"
    write_archive(path, {"a": torch.arange(9.0)})
    torch.save({"a": torch.arange(9.0)}, old)
    for each, sealed in ((path, True), (old, False)):
        state, has_checksum = read_archive(each)
        assert torch.equal(state["a"], torch.arange(9.0)) and has_checksum == sealed
        good = each.read_bytes()
        place = good.index(torch.arange(9.0).numpy().tobytes())
        for bad in (good[:place] + b"\xff" + good[place + 1 :], good[:-200], b"", *[good[:-9]] * sealed):
            each.write_bytes(bad)
            with pytest.raises(DamagedArchive):
                read_archive(each)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["old.pt", "state.pt"]


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
