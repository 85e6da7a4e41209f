"""Training that is killed: another process that ends itself with SIGKILL in the middle of an epoch."""

import os
import signal
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def run_until_killed(module: str, *arguments: object) -> None:
    """Run a module of the tests as a program, and check that it was killed."""
    paths = (TESTS, TESTS.parent / "src", os.environ.get("PYTHONPATH", ""))
    ran = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, paths))},
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr
