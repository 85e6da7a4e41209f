import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import SoftFileLock, Timeout

from dpap.experiment.errors import UserError
from dpap.experiment.locks import comparison_lock, is_held, only_writer
from dpap.experiment.train import resume, train

HOLD = """
import sys
from pathlib import Path
from dpap.experiment.locks import comparison_lock
with comparison_lock(Path(sys.argv[1]), "run"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    lock, second = (comparison_lock(tmp_path / "comparison", "run") for _ in range(2))
    other_run = comparison_lock(tmp_path / "comparison", "other")
    assert not is_held(lock)
    assert not tmp_path.joinpath("comparison").exists()
    with lock:
        assert is_held(second) and not is_held(other_run)
        with pytest.raises(Timeout):
            second.acquire(blocking=False)
    assert not is_held(lock)
    with second:
        assert is_held(lock)


def test_the_system_locks_and_not_the_existence_of_a_file(tmp_path: Path) -> None:
    lock = comparison_lock(tmp_path, "run")
    assert not isinstance(lock, SoftFileLock)
    Path(lock.lock_file).parent.mkdir()
    Path(lock.lock_file).touch()
    assert not is_held(lock)


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_another_process_holds_it_until_it_ends(tmp_path: Path, end: str) -> None:
    lock = comparison_lock(tmp_path, "run")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None and other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert is_held(lock)
        with pytest.raises(Timeout):
            lock.acquire(timeout=0.1)
        if end == "killed":
            other.kill()
            other.wait()
        else:
            other.stdin.close()
        with lock.acquire(timeout=60):  # waits
            assert is_held(comparison_lock(tmp_path, "run"))
    assert not is_held(lock)


def test_one_process_at_a_time_writes_in_a_run_folder(tmp_path: Path) -> None:
    with (
        only_writer(tmp_path),
        pytest.raises(UserError, match="being written by another process"),
        only_writer(tmp_path),
    ):
        pass
    with only_writer(tmp_path):
        pass


def test_a_run_that_is_going_on_is_neither_replaced_nor_gone_on_with(tiny: Any) -> None:
    config = tiny(training={"epochs": 1}, pruning={"start_epoch": 0, "end_epoch": 1})
    train(config)
    before = {path.name: path.read_bytes() for path in config.folder.iterdir() if path.is_file()}
    with only_writer(config.folder):
        with pytest.raises(UserError, match="another process"):
            train(config, overwrite=True)
        (config.folder / "summary.json").unlink()
        with pytest.raises(UserError, match="another process"):
            resume(config.folder)
    (config.folder / "summary.json").write_bytes(before["summary.json"])
    assert before == {path.name: path.read_bytes() for path in config.folder.iterdir() if path.is_file()}
