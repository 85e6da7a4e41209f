import io
from typing import Any

import pytest
from rich.console import Console

from dpap.experiment.progress import Bar, Lines, epoch_line

RECORD: dict[str, Any] = {
    "epoch": 3,
    "train_loss": 0.5,
    "train_accuracy": 0.875,
    "test_accuracy": 0.75,
    "validation_accuracy": None,
    "sparsity": 0.6,
    "timestep_sparsity": 0.0,
    "layers": [{"name": "fc1"}],
    "seconds": 1.25,
    "compacted": {"parameters_before": 2000, "parameters_after": 1000},
}


def test_a_line_holds_the_epoch() -> None:
    line = epoch_line(RECORD, 10, 90.0)
    for part in (
        "epoch  3/10",
        "0.5000",
        "87.50%",
        "75.00%",
        "pruned 60.00%",
        "1 min 30 s left",
        "2,000 -> 1,000",
    ):
        assert part in line
    assert "timesteps" not in line
    assert "pruned" not in epoch_line({**RECORD, "layers": []}, 10, 1.0)


def test_lines_hold_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    lines.begin_epoch(3, 10, 5)
    lines.batch(1)
    lines.end_epoch(RECORD, 10, 1.0)
    lines.close()
    printed = capsys.readouterr().out
    assert "epoch  3/10" in printed
    assert all(character.isprintable() or character == "\n" for character in printed)


def test_a_bar_moves_and_leaves_the_lines() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    bar = Bar(console)
    bar.begin_epoch(3, 10, 5)
    bar.batch(5)
    bar.end_epoch(RECORD, 10, 1.0)
    bar.begin_epoch(4, 10, 5)
    bar.close()
    bar.close()
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "epoch 3/10" in text
    assert "test  75.00%" in text
