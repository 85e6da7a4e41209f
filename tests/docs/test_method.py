"""The page of the method names what there is: every equation once, with functions that exist."""

import inspect
import re
from pathlib import Path
from types import FunctionType

import dpap.metrics
import dpap.plasticity

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
ROWS = re.findall(r"(?m)^\| \((\d+)\) \| (.*) \|$", PAGE)
"""Equation, and the cell of its functions."""
NUMBER = re.compile(r"(?<!\w)\((\d{1,2})\)")


def functions() -> dict[str, FunctionType]:
    """Public functions of the equations, by name."""
    named = [(module, name) for module in (dpap.plasticity, dpap.metrics) for name in module.__all__]
    found = {name: getattr(module, name) for module, name in named}
    return {name: each for name, each in found.items() if inspect.isfunction(each)}


def test_every_equation_has_a_row() -> None:
    assert sorted(int(number) for number, _ in ROWS) == list(range(1, 16))


def test_functions_of_a_row_exist_and_name_the_equation() -> None:
    known = functions()
    for number, cell in ROWS:
        names = [name for name in re.findall(r"`(\w+)`", cell) if name in known]
        assert names, f"({number}) names no public function: {cell}"
        words = " ".join(inspect.getdoc(known[name]) or "" for name in names)
        modules = " ".join(inspect.getmodule(known[name]).__doc__ or "" for name in names)  # type: ignore[union-attr]
        spans = [
            range(int(a), int(b) + 1) for a, b in re.findall(r"\((\d+)\)(?: to |-)\((\d+)\)", words + modules)
        ]
        cited = {int(each) for each in NUMBER.findall(words + modules)} | {n for span in spans for n in span}
        assert int(number) in cited, f"({number}): {names} do not say that they compute it"


def test_every_public_function_that_computes_an_equation_is_named() -> None:
    for name, function in functions().items():
        if NUMBER.search(inspect.getdoc(function) or ""):
            assert f"`{name}`" in PAGE, name


def test_places_and_names_exist() -> None:
    sources = ROOT / "src" / "dpap"
    for path in re.findall(r"`(\w+/[\w/]+\.py)`", PAGE):
        assert (sources / path).is_file(), path
    for name, path in re.findall(r"`(\w+)`(?:\]\(\S+\))? (?:in|of) `([\w/]+\.py)`", PAGE):
        assert re.search(rf"^(?:def|class) {name}\b", (sources / path).read_text(), re.MULTILINE), (
            name,
            path,
        )
