"""Is it right? The tests that need a GPU, each file in a process of its own."""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from jobs import Job, Setting

ROOT = Path(__file__).resolve().parents[2]


def tested(path: str, limit: float, setting: Setting) -> dict[str, Any]:
    """Counts of a file's tests, and names and messages of those that failed."""
    where = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-v",
        "-rfE",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        "-W",
        "default",
    ]
    ran = subprocess.run(
        [*words, path],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": where},
        capture_output=True,
        text=True,
        timeout=60 if setting.rehearse else limit,
    )
    last = ran.stdout.strip().splitlines()[-1:] or [""]
    counts = {
        kind: int(number) for number, kind in re.findall(r"(\d+) (passed|failed|error|skipped)", ran.stdout)
    }
    failures = re.findall(r"^(?:FAILED|ERROR) (.*)$", ran.stdout, re.MULTILINE)
    outcome = {
        "passed": 0,
        "failed": 0,
        **counts,
        "failures": [line[:300] for line in failures],
        "last": last[0],
    }
    if ran.returncode not in (0, 1, 5):
        raise RuntimeError(f"pytest returned {ran.returncode}: {ran.stdout[-1500:]}{ran.stderr[-500:]}")
    if failures:
        outcome["log"] = ran.stdout[-12000:]
    return outcome


JOBS = [
    Job("right", path, seconds, partial(tested, path, 4 * seconds + 30))
    for path, seconds in (
        ("tests/cuda/test_neurons.py", 27),
        ("tests/cuda/test_pruner.py", 77),
        ("tests/spiking/test_kernel.py", 22),
        ("tests/cuda/test_data.py", 15),
    )
]
