"""The messages that the page quotes are those of the source, and come where the page says."""

import ast
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import dpap

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"(?m)^\| `([^`]+)` \|", PAGE)
"""Messages of dpap, as they begin; what another package says has words behind it."""
X = torch.ones(4, 3)


def source_messages() -> set[str]:
    """All texts of the source but docstrings; what is filled in is `...`."""
    found: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        docstrings: set[int] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):  # parents come before children
            if isinstance(node, ast.Expr):
                docstrings.add(id(node.value))
            elif id(node) in docstrings:
                continue
            elif isinstance(node, ast.JoinedStr):
                found.add(
                    "".join(
                        str(each.value) if isinstance(each, ast.Constant) else "..." for each in node.values
                    )
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def pattern(quoted: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in quoted.split("...")), re.DOTALL)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))


def pruner(model: nn.Module | None = None, **options: object) -> dpap.Pruner:
    config = dpap.PruningConfig(target=0.5, end_epoch=2)
    model = model or network()
    given = {"optimizer": torch.optim.SGD(model.parameters(), 0.1), "config": config, **options}
    return dpap.Pruner(model, X, **given)  # type: ignore[arg-type]


class TwoInputs(nn.Module):
    """Takes less than a batch with labels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def _of_a_scheduler() -> None:
    optimizer = torch.optim.SGD(network().parameters(), 0.1)
    pruner(optimizer=torch.optim.lr_scheduler.StepLR(optimizer, 1))


def _twice() -> None:
    model = network()
    first = pruner(model)
    try:
        pruner(model)
    finally:
        first.detach()


def _out_of_reach() -> None:
    pruner(config=dpap.PruningConfig(target=0.99, target_of="parameters", end_epoch=2))


def _no_training() -> None:
    one = pruner(config=dpap.PruningConfig(target=0.5, end_epoch=2, start_epoch=0))
    one.step()


def _no_forward() -> None:
    one = pruner(config=dpap.PruningConfig.paper(target=0.5, end_epoch=2, start_epoch=0))
    one.step()


class Divides(nn.Module):
    """Makes NaN by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x) + (x - x).sum() / (x - x).sum()


RAISED: dict[str, Callable[[], object]] = {
    "a target needs end_epoch": lambda: dpap.PruningConfig(target=0.5),
    "end_epoch must lie after start_epoch": lambda: dpap.PruningConfig(target=0.5, end_epoch=1),
    "criterion must be one of": lambda: dpap.PruningConfig(criterion="hebbb"),
    "example_inputs expects what the network's forward... takes": lambda: dpap.Pruner(TwoInputs(), (X, X)),
    "example_inputs expects a list of several examples that are alike": lambda: dpap.Pruner(
        network(), [X, torch.arange(4)]
    ),
    "example_inputs are on ..., the network is on": lambda: dpap.Pruner(network(), X.to("meta")),
    "optimizer: ... holds no parameter of this network": lambda: pruner(
        optimizer=torch.optim.SGD(network().parameters(), 0.1)
    ),
    "optimizer expects a torch.optim.Optimizer; got the scheduler": _of_a_scheduler,
    "this ... has a Pruner already": _twice,
    "nothing in this network can be pruned": lambda: dpap.Pruner(nn.Linear(3, 2), X),
    "no weight layer (Linear, convolution, or registered) ran on the example inputs": lambda: dpap.Pruner(
        nn.ReLU(), X
    ),
    "the network makes NaN where no dye is": lambda: dpap.Pruner(Divides(), X),
    "copies expects networks of the same structure": lambda: pruner(copies=nn.Linear(3, 2)),
    "the target, ..., is out of reach": _out_of_reach,
    "no gradient of the network was observed since the last step": _no_training,
    "no training forward of the network was observed since the last step": _no_forward,
    "expected a file that dpap.save wrote; there is none at": lambda: dpap.load(
        "absent.safetensors", network()
    ),
}
"""What raises or warns, where that takes little."""


def test_every_quoted_message_begins_one_of_the_source() -> None:
    messages = source_messages()
    assert len(QUOTED) > 30
    for quoted in QUOTED:
        parts = quoted.split("...")
        near = [text for text in messages if all(part in text for part in parts)]
        assert any(pattern(quoted).match(text) for text in near), quoted


@pytest.mark.parametrize("quoted", RAISED)
def test_a_quoted_message_comes(quoted: str) -> None:
    assert quoted in QUOTED
    warnings.simplefilter("error")
    with pytest.raises((ValueError, TypeError, RuntimeError, OSError, UserWarning)) as raised:
        RAISED[quoted]()
    assert pattern(quoted).match(str(raised.value)), str(raised.value)
