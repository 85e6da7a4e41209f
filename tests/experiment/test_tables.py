import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpap.experiment.tables import markdown, text_table

HEAD, ROWS = ["", "dense"], [["weights", "5"], ["MACs", "1,000"]]
Cells = st.text("ab |[/]:µ±†", max_size=8).map(lambda text: text.strip() or "-")


def test_columns_line_up() -> None:
    assert text_table(HEAD, ROWS).splitlines() == [
        "        | dense",
        "--------|------",
        "weights |     5",
        "MACs    | 1,000",
    ]
    assert markdown(HEAD, ROWS).splitlines() == [
        "|         | dense |",
        "| ------- | ----: |",
        "| weights |     5 |",
        "| MACs    | 1,000 |",
    ]
    assert markdown(["run", "n"], []).splitlines() == ["| run |  n |", "| --- | -: |"]


@pytest.mark.parametrize("write", [text_table, markdown])
def test_a_row_has_as_many_cells_as_the_head(write: object) -> None:
    assert callable(write)
    for row in (["1"], ["1", "2", "3"]):
        with pytest.raises(ValueError, match="2 cells"):
            write(["a", "b"], [row])


@given(st.lists(st.tuples(Cells, Cells, Cells), max_size=4))
def test_cells_stand_as_they_are_given(rows: list[tuple[str, str, str]]) -> None:
    _, _, *lines = text_table(["first", "second", "third"], rows).splitlines()
    assert len(lines) == len(rows)
    for row, line in zip(rows, lines, strict=True):
        assert line.startswith(row[0]) and line.endswith(f" {row[2]}") and f" {row[1]} " in line


def test_nothing_is_cut_or_coloured_whatever_the_terminal() -> None:
    program = f"from dpap.experiment.tables import text_table; print(text_table(['a', 'b'], [['{'x' * 300}', 'c d']]))"
    environment = {**os.environ, "COLUMNS": "20", "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TERM": "xterm"}
    made = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert made.stdout.splitlines()[2] == "x" * 300 + " | c d"
    assert all(character.isprintable() or character == "\n" for character in made.stdout)
