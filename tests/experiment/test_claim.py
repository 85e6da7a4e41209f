import subprocess
import sys
from pathlib import Path

import pytest

from dpap.experiment.claim import claim, claimed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such locks")

HOLD = """
import sys
from pathlib import Path
from dpap.experiment.claim import claim
with claim(Path(sys.argv[1])) as ours:
    print(ours, flush=True)
    sys.stdin.read()
"""


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "run"
    assert not claimed(path)
    with claim(path) as ours:
        assert ours
        assert claimed(path)
        with claim(path) as second:
            assert not second
    with claim(path, wait=True) as again:
        assert again


def test_a_process_that_is_killed_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert claimed(path)
        other.kill()
        other.wait()
    assert not claimed(path)
