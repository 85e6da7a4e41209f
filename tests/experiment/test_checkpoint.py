import os
import pickle
from pathlib import Path

import pytest
import torch

from dpap.experiment.checkpoint import epoch_seed, read_checkpoint, write_checkpoint
from dpap.experiment.errors import UserError


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(
        path, {"epoch": 3, "model": {"w": torch.arange(3.0)}, "config": {"name": "x", "target": None}}
    )
    state = read_checkpoint(path)
    assert state["epoch"] == 3
    assert torch.equal(state["model"]["w"], torch.arange(3.0))
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save({"format": 1, "evil": Evil()}, tmp_path / "checkpoint.pt", pickle_module=pickle)
    with pytest.raises(UserError, match="not a readable checkpoint"):
        read_checkpoint(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "harm").exists()


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(UserError, match="no checkpoint"):
        read_checkpoint(path)
    write_checkpoint(path, {"epoch": 1})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="not a readable checkpoint"):
        read_checkpoint(path)
    torch.save({"format": 99}, path)
    with pytest.raises(UserError, match=r"format 99.*reads 1"):
        read_checkpoint(path)


def test_epochs_have_seeds_of_their_own() -> None:
    seeds = [epoch_seed(seed, epoch) for seed in range(10) for epoch in range(100)]
    assert len(set(seeds)) == 1000
    assert epoch_seed(3, 4) == epoch_seed(3, 4)
