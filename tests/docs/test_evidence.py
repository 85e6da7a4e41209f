"""The tables of the pages are those that `benchmarks/evidence.py` makes from docs/evidence."""

import importlib.util
import re
import types
from pathlib import Path
from typing import Any

import pytest
import yaml

from dpap.experiment.comparing.results import EpochResult, Result, as_csv, read_csv
from support.comparison import made

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


def cells(table: str, title: str, pruned: str) -> dict[str, str]:
    """A line of a Markdown table, by its first two cells."""
    head, _, *lines = [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()]
    return next(dict(zip(head, line, strict=True)) for line in lines if line[:2] == [title, pruned])


def vgg16(method: str, accuracy: float, target: float | None = 0.9, **fields: Any) -> list[Result]:
    recipe = fields.pop("recipe", "cifar10_vgg16_float32")
    return [
        made(method, seed, accuracy + 0.001 * seed, target, recipe=recipe, **fields) for seed in (2, 3, 4)
    ]


def test_what_is_ahead_is_said_of_all_methods_whatever_columns_there_are(evidence: types.ModuleType) -> None:
    row = next(row for row in evidence.SUMMARY if row.recipes == evidence.VGG16_RECIPES)
    results = [
        *vgg16("dense", 0.65, None), *vgg16("dpap", 0.62), *vgg16("scratch", 0.5), *vgg16("taylor", 0.63),
        *vgg16("global_magnitude", 0.55), *vgg16("paper", 0.3, recipe="cifar10_vgg16"),
        *vgg16("magnitude", 0.57, recipe="cifar10_vgg16"),
    ]  # fmt: skip
    front = cells(evidence.summary(results, evidence.FRONT, [row], spread=False), evidence.VGG16, "90%")
    assert (front["dense"], front["dpap (default)"], front["small dense from scratch"]) == (
        "65.30",
        "62.30",
        "50.30",
    )
    assert front["magnitude (better of both rules)"] == "57.30 ‡"
    assert front["ahead"] == "`taylor`"
    paper = cells(evidence.summary(results, evidence.PAPER, [row], spread=False), evidence.VGG16, "90%")
    assert (paper["paper's rule (`bcm`)"], paper["magnitude"], paper["random"]) == (
        "30.30 ‡",
        "57.30 ‡",
        "not measured",
    )
    assert paper["ahead"] == "`taylor`"


def test_lines_of_the_summary_appear_with_their_runs(evidence: types.ModuleType) -> None:
    results = [
        *vgg16("dense", 0.65, None), *vgg16("dpap", 0.6, 0.8, target_of="macs"),
        *vgg16("scratch", 0.6, 0.8, target_of="macs"),
    ]  # fmt: skip
    table = evidence.summary(results, evidence.DEFAULT, evidence.SUMMARY, spread=True)
    assert len(table.splitlines()) == 3
    line = cells(table, evidence.VGG16, "80% of MACs")
    assert (line["n"], line["dense"], line["dpap (default)"], line["ahead"]) == (
        "3", "65.30 ± 0.10", "60.30 ± 0.10", "all tie"
    )  # fmt: skip
    assert line["magnitude by that rule"] == "not measured"
    assert len(evidence.summary(results, evidence.PAPER, evidence.SUMMARY, spread=True).splitlines()) == 2


def test_both_rules_stand_beside_the_published_figures(evidence: types.ModuleType) -> None:
    results = [
        made(method, seed, 0.99, target, recipe="mnist_ann", converged=2, seconds_to_converge=2.0)
        for seed in (0, 1)
        for method, target in (("dense", None), ("dpap", 0.56), ("paper", 0.56), ("strength", 0.56))
    ]
    published = {"mnist_ann": {"dense": 99.2, "pruned": {0.56: 99.24}, "epochs": [50, 39]}}
    for table in (evidence.beside(results, published), evidence.speed(results, published)):
        assert cells(table, "mnist_ann", "dpap")["n"] == cells(table, "mnist_ann", "paper")["n"] == "2"
        assert "strength" not in table
    assert cells(evidence.beside(results, published), "mnist_ann", "dense")["published"] == "99.20"
    assert cells(evidence.speed(results, published), "mnist_ann", "paper")["reaches it"] == "2 of 2"


def test_runs_are_compared_with_dense_twins_published_before(
    evidence: types.ModuleType, tmp_path: Path
) -> None:
    def write(folder: Path, results: list[Result]) -> Path:
        folder.mkdir()
        epochs = [
            EpochResult(each.recipe, each.method, each.target, each.target_of, each.seed, epoch,
                        each.accuracy - 0.1 * (3 - epoch), None, 0.0, 0.0, 900, 1.5)
            for each in results
            for epoch in (1, 2, 3)
        ]  # fmt: skip
        (folder / "results.csv").write_text(as_csv(Result, results))
        (folder / "epochs.csv").write_text(as_csv(EpochResult, epochs))
        return folder

    out = tmp_path / "out"
    evidence.publish(write(tmp_path / "one", [made("dense", 0, 0.8), made("paper", 0, 0.7, 0.5)]), out)
    evidence.publish(write(tmp_path / "two", [made("dpap", 0, 0.95, 0.5)]), out)
    found = {each.method: each for each in read_csv(Result, out / "results.csv")}
    assert [found[name].converged for name in ("dense", "paper", "dpap")] == [3, None, 2]
    assert found["dpap"].seconds_to_converge == pytest.approx(3.0)
    assert (out / "digits-size.png").exists()


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
