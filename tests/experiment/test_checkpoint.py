import os
import pickle
import random
import zipfile
from pathlib import Path

import pytest
import torch

from dpap.experiment.checkpoint import epoch_seed, read_checkpoint, read_last, write_checkpoint
from dpap.experiment.errors import UserError
from dpap.experiment.run_folder import RunFolder
from support.runs import tensors


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


STATE = {
    "epoch": 2,
    "config": {"name": "x"},
    "model": {"w": torch.arange(64.0)},
    "optimizer": {"step": 3, "moments": torch.zeros(64)},
    "pruner": None,
}


@pytest.mark.parametrize("form", ["now", "format 1, as of dpap 0.1.0"])
def test_no_damage_gives_another_state(form: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    if form == "now":
        write_checkpoint(path, STATE)
    else:
        torch.save({"format": 1, **STATE}, path)
    whole, rng = path.read_bytes(), random.Random(0)
    right = tensors(read_checkpoint(path))
    for number in range(200):
        changed = bytearray(whole)
        place = rng.randrange(len(whole))
        if number % 4 == 0:
            changed = changed[:place]
        elif number % 4 == 1:
            changed[place : place + 512] = bytes(len(changed[place : place + 512]))
        else:
            changed[place] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            found = tensors(read_checkpoint(path))
        except UserError as error:
            assert str(path) in str(error)
            continue
        assert form != "now" or changed == whole
        assert found.keys() == right.keys()
        for name, value in right.items():
            assert (
                torch.equal(found[name], value) if isinstance(value, torch.Tensor) else found[name] == value
            )


def test_a_checkpoint_is_a_file_of_torch(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint.pt", STATE)
    assert zipfile.ZipFile(tmp_path / "checkpoint.pt").testzip() is None
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["epoch"] == 2


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_one_before_is_used_where_the_last_is_damaged(tmp_path: Path) -> None:
    folder, said = RunFolder(tmp_path), []
    assert read_last(folder, said.append) is None
    for epoch in (1, 2, 3):
        write_checkpoint(folder.checkpoint, {**STATE, "epoch": epoch}, previous=folder.previous)
    assert read_checkpoint(folder.previous)["epoch"] == 2
    assert not said
    damage(folder.checkpoint)
    state = read_last(folder, said.append)
    assert state is not None and state["epoch"] == 2
    assert len(said) == 1 and str(folder.checkpoint) in said[0] and "the one before" in said[0]
    # the next takes the place of the damaged one, not of the good one
    write_checkpoint(folder.checkpoint, {**STATE, "epoch": 3}, previous=folder.previous)
    assert [read_checkpoint(path)["epoch"] for path in (folder.checkpoint, folder.previous)] == [3, 2]
    # killed between two renames
    folder.checkpoint.replace(folder.previous)
    state = read_last(folder, said.append)
    assert state is not None and state["epoch"] == 3 and len(said) == 1


def test_two_damaged_checkpoints_are_an_error(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for epoch in (1, 2):
        write_checkpoint(folder.checkpoint, {**STATE, "epoch": epoch}, previous=folder.previous)
    damage(folder.checkpoint)
    damage(folder.previous)
    with pytest.raises(
        UserError, match=r"checkpoint\.pt is not.*checkpoint-previous\.pt is not.*--overwrite"
    ):
        read_last(folder, print)


def test_another_file_of_torch_is_no_checkpoint_of_a_run(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint.pt", {"epoch": 1, "model": {}})
    with pytest.raises(UserError, match=r"no checkpoint of a run: it has no config, optimizer, pruner"):
        read_last(RunFolder(tmp_path), print)
