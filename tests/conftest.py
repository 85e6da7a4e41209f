"""Every shape in an annotation of `dpap` is checked while the tests run."""

import os
from collections.abc import Iterator

os.environ.setdefault("MPLBACKEND", "Agg")

from pathlib import Path

from jaxtyping import install_import_hook

# in modules with shapes alone, and not in the innermost: a check of each call costs more than the call itself
SRC = Path(__file__).parents[1] / "src"
INNERMOST = ("dpap.anatomy.dye",)
SHAPED = [
    ".".join(path.relative_to(SRC).with_suffix("").parts)
    for path in sorted(SRC.rglob("*.py"))
    if "from jaxtyping import" in path.read_text(encoding="utf-8")
]
install_import_hook([name for name in SHAPED if name not in INNERMOST], "beartype.beartype")

import jaxtyping
import pytest
import torch
from hypothesis import Phase, settings

# tiny tensors gain nothing from threads, and lose much when cores are shared
torch.set_num_threads(1)
# shrinking a network trains it hundreds of times; the failing one is small enough to read
phases = [Phase.explicit, Phase.reuse, Phase.generate]
settings.register_profile("dpap", deadline=None, print_blob=True, derandomize=True, phases=phases)
settings.load_profile("dpap")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Shapes and types are not checked: the compiler stumbles over the checks, and bad input should reach our own."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
