"""Every shape in an annotation of `dpap` is checked while the tests run."""

import os
from collections.abc import Iterator

os.environ.setdefault("MPLBACKEND", "Agg")

from pathlib import Path

from support.shapes import check_shapes

check_shapes(Path(__file__).parents[1] / "src")

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
