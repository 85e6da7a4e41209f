"""The examples run, and print a smaller network with the same accuracy."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("framework", ["spikingjelly", "snntorch"])
def test_an_example_shrinks_its_network_and_changes_nothing_else(framework: str) -> None:
    pytest.importorskip(framework)
    script = EXAMPLES / f"{framework}_digits.py"
    marks = re.findall(r"# (\d)$", script.read_text(), re.MULTILINE)
    assert marks == ["1", "2", "3", "4"]
    ran = subprocess.run(
        [sys.executable, str(script), "2"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    reports = re.findall(
        r"(before|after) compaction: ([\d,]+) parameters, test accuracy ([\d.]+)%", ran.stdout
    )
    assert [when for when, _, _ in reports] == ["before", "after"]
    before, after = (int(parameters.replace(",", "")) for _, parameters, _ in reports)
    assert after < 0.7 * before
    assert reports[0][2] == reports[1][2]
