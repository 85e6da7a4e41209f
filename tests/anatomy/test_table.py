"""The printed wiring: it fits the terminal, groups layers of one shape, and sums up."""

import re

import pytest
import torch
from torch import nn

from dpap.anatomy import Wiring, find_wiring
from dpap.anatomy.table import Row, as_html, as_text, grouped, shortened, together


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand, self.activation, self.project = nn.Linear(width, 9), nn.ReLU(), nn.Linear(9, width)

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        return stream + self.project(self.activation(self.expand(stream)))


def _deep(depth: int, name: str = "a_long_name_for_a_stack_of_blocks") -> Wiring:
    blocks = nn.Sequential(*(Block(6) for _ in range(depth)))
    model = nn.Sequential()
    model.add_module(name, blocks)
    model.add_module("head", nn.Linear(6, 2))
    return find_wiring(model, (torch.rand(3, 6),))


def _row(name: str, reason: str = "", sources: tuple[str, ...] = ("input",)) -> Row:
    return Row(name, "fc", (6, 6), 36, sources, "-", "no" if reason else "units", reason)


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("depth", [3, 12])
def test_no_line_is_wider_than_the_terminal(width: int, depth: int) -> None:
    assert max(map(len, _deep(depth).table(width).splitlines())) <= width


def test_print_takes_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    wiring = _deep(3)
    monkeypatch.setenv("COLUMNS", "90")
    assert str(wiring) == wiring.table(90) != wiring.table(200)
    monkeypatch.setenv("COLUMNS", "200")
    assert str(wiring) == wiring.table(200)


def test_many_layers_of_one_shape_share_a_row_that_counts_them() -> None:
    lines = _deep(12).table(200).splitlines()
    expand = next(line for line in lines if "expand" in line)
    assert "{0-11}.expand" in expand and "12 x 54" in expand
    assert len(lines) < 12


def test_a_few_layers_stand_in_a_row_each() -> None:
    lines = _deep(3).table(200).splitlines()
    assert sum("expand" in line.split()[0] for line in lines) == 3


def test_layers_that_differ_in_anything_but_numbers_are_not_grouped() -> None:
    rows = [_row(f"block{number}.fc") for number in range(30)]
    other = [
        _row("block30.fc", reason="it shares a parameter with block1.fc"),
        Row("block31.fc", "fc", (6, 7), 42, ("input",), "-", "units", ""),
        _row("block32.other"),
    ]
    assert [len(group) for group in grouped([*rows, *other])] == [30, 1, 1, 1]


def test_reasons_that_do_not_fit_follow_once_as_notes() -> None:
    reason = "it shares a parameter with a layer of a name that is long enough for a note below the table"
    rows = [_row("one", reason), _row("two"), _row("three", reason)]
    text = as_text(rows, "total", width=80)
    assert re.findall(r"no \[1\]$", text, re.MULTILINE) == ["no [1]", "no [1]"]
    assert " ".join(text.split()).count(reason) == 1
    assert as_text(rows, "total", width=200).count(f"no: {reason}") == 2


def test_other_sources_are_counted_where_they_do_not_fit() -> None:
    sources = tuple(f"backbone.stage{number}.convolution" for number in range(7))
    rows = [_row("head", sources=sources)]
    assert "backbone.stage0.convolution + 6" in as_text(rows, "total", width=100)
    assert ", ".join(sources) in as_text(rows, "total", width=400)


def test_a_short_name_keeps_both_ends() -> None:
    short = shortened("encoder.layers.encoder_layer_11.mlp.3", 16)
    assert len(short) == 16 and short.startswith("encod") and short.endswith("11.mlp.3")
    assert shortened("fc1", 16) == "fc1"


def test_numbers_of_a_group_are_ranges() -> None:
    names = ["l1.b0", "l1.b1", "l2.b0", "l3.b1"]
    assert together(names) == "l{1-3}.b{0-1}"
    assert together([f"b{number}" for number in (1, 3, 5, 7, 9, 11)]) == "b{1,3,..,11}"


def test_the_last_line_is_the_total() -> None:
    wiring = _deep(3)
    total = wiring.table(200).splitlines()[-1]
    weights = sum(layer.weights for layer in wiring.layers.values())
    own = sum(layer.weights for name, layer in wiring.layers.items() if name != "head")
    # the stream reaches the output layer, but nothing in it dies: the head keeps all its weights
    assert total == (
        f"total: 7 layers (3 prunable, 4 whole), {weights} weights, of which {own / weights:.1%} can die"
    )


def test_a_notebook_shows_a_table_of_full_names_without_markup_from_names() -> None:
    html = _deep(12)._repr_html_()
    assert html.startswith("<table>") and html.count("<tr") == len(_deep(12).table(400).splitlines()) - 1
    assert "a_long_name_for_a_stack_of_blocks.{0-11}.expand" in html
    assert "a_long_name_for_a_stack_of_blocks.7.expand" in html and "total: 25 layers" in html
    assert "<script>" not in as_html([_row("<script>")], "total")
