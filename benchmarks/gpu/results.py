"""Results as JSON lines: one file to which every run adds, and what it holds already."""

import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "triton", "spikingjelly", "snntorch")


class Results:
    """A file of JSON lines, each with `part`, `job` and `card`, which are its key.

    Args:
        path: the file; it need not exist.
        card: name of the device that runs now.
    """

    def __init__(self, path: Path, card: str) -> None:
        self.path = path
        self.card = card

    def lines(self) -> list[dict[str, Any]]:
        """All results, of all cards, but for a line that was cut off where the program was killed."""
        if not self.path.exists():
            return []
        whole, _, _ = self.path.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines() if line.strip()]

    def done(self) -> set[tuple[str, str]]:
        """Part and name of the jobs that this card has finished; those that failed are not among them."""
        return {
            (line["part"], line["job"])
            for line in self.lines()
            if line["card"] == self.card and "error" not in line
        }

    def add(self, part: str, job: str, seconds: float, outcome: dict[str, Any]) -> None:
        """Write one result, whole and at once."""
        line = {
            "part": part,
            "job": job,
            "card": self.card,
            "seconds": round(seconds, 1),
            **outcome,
            **versions(),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write((json.dumps(line) + "\n").encode())


def card_of(device: torch.device) -> str:
    """The device's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def versions() -> dict[str, Any]:
    """Versions of what is measured, and the commit where git has one."""
    found: dict[str, Any] = {"python": platform.python_version(), "cuda": torch.version.cuda}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    found["commit"] = commit()
    return found


def commit() -> str | None:
    """The commit of this checkout."""
    try:
        asked = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return asked.stdout.strip()
