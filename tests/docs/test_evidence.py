"""The tables of the pages are those that `benchmarks/evidence.py` makes from docs/evidence."""

import importlib.util
import re
import types
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def evidence() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("evidence", ROOT / "benchmarks" / "evidence.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_table_is_that_of_the_evidence(evidence: types.ModuleType) -> None:
    tables, homes = evidence.made_from(ROOT / "docs" / "evidence")
    pages = evidence.pages(ROOT)
    for path, text in evidence.written(pages, tables, homes).items():
        assert text == pages.get(path), f"{path.name} is out of date: run python benchmarks/evidence.py"
    named = [name for text in pages.values() for name, _ in re.findall(evidence.BLOCK, text)]
    assert sorted(named) == sorted(tables)


def test_a_recipe_that_no_page_names_gets_a_section(evidence: types.ModuleType) -> None:
    pages = {Path("docs/results.md"): "# Results\n\n<!-- one -->\nold\n<!-- end -->\n"}
    made = evidence.written(pages, {"one": "1", "two": "2"}, {"one": "mnist", "two": "digits"})
    assert made[Path("docs/results.md")] == "# Results\n\n<!-- one -->\n1\n<!-- end -->\n"
    assert made[Path("docs/results/digits.md")] == "# digits\n\n## two\n\n<!-- two -->\n2\n<!-- end -->\n"
    with pytest.raises(ValueError, match="does not begin or end"):
        evidence.filled("<!-- end -->", {})


def test_the_results_fit_two_screens() -> None:
    lines = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 90
    assert max(len(line) for line in lines if not line.startswith("|")) <= 180


def test_the_citation_is_one() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= citation.keys()
    assert citation["preferred-citation"]["doi"] == "10.1109/TPAMI.2024.3467268"
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{citation["version"]}"' in project
