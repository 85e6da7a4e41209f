"""What makes the site of the pages: links, lists of fields, notebooks, the picture, and whether all names are there."""

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import dpap

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SHOWN = set(re.findall(r"(?m)^::: (\S+)$", "".join(page.read_text() for page in DOCS.glob("reference/*.md"))))


def loaded(path: str) -> ModuleType:
    """A module of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, DOCS / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and typing look there
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


def names() -> Iterator[str]:
    """Public names of the packages that users import from, each by the shortest path."""
    yield from (f"dpap.{name}" for name in dpap.__all__)
    for package in ("anatomy", "plasticity", "spiking", "metrics", "baselines", "export", "data"):
        module = importlib.import_module(f"dpap.{package}")
        for name in module.__all__:
            value = getattr(module, name)
            if callable(value) and getattr(dpap, name, None) is not value:
                yield f"dpap.{package}.{name}"


@pytest.mark.parametrize("name", sorted(names()))
def test_every_public_name_is_on_a_page_of_the_reference(name: str) -> None:
    assert name in SHOWN


def test_what_the_reference_shows_exists() -> None:
    for path in SHOWN:
        module, _, name = path.rpartition(".")
        file = (ROOT / "src").joinpath(*module.split("."))
        if module.startswith("dpap.integrations."):  # needs the framework
            assert re.search(rf"(?m)^(?:class|def) {name}\b", file.with_suffix(".py").read_text()), path
        else:
            assert inspect.getdoc(getattr(importlib.import_module(module), name)), path


def test_links_lead_to_where_things_stand_on_the_site() -> None:
    repository = loaded("site/repository.py")
    page = (
        "[a](../README.md#x) [b](../recipes/digits_snn.yaml) [c](results.md) [d](../src) [e](#here) [f](https://a.b) "
        "![g](growth.png)\n`[h](../README.md)`\n<!-- setup:\n[i](../README.md)\n-->\n```sh\n[j](../README.md)\n```\n"
    )
    assert repository.links(page) == {
        "../README.md", "../recipes/digits_snn.yaml", "results.md", "../src", "growth.png"
    }  # fmt: skip
    assert repository.for_site("docs/choosing.md", repository.without_comments(page)) == (
        "[a](index.md#x) [b](source/recipes/digits_snn.yaml.md) [c](results.md) d (`src`) [e](#here) "
        "[f](https://a.b) ![g](growth.png)\n`[h](../README.md)`\n```sh\n[j](../README.md)\n```\n"
    )
    assert repository.for_site("README.md", "[a](docs/results/mnist.md) [b](examples/README.md)") == (
        "[a](results/mnist.md) [b](examples/index.md)"
    )
    assert (
        repository.for_site("examples/README.md", "[a](digits.py)") == "[a](../source/examples/digits.py.md)"
    )


def test_comments_in_code_stay() -> None:
    repository = loaded("site/repository.py")
    page = "a\n<!-- summary -->\nb\n```html\n<!-- c -->\n```\n"
    assert repository.without_comments(page) == "a\nb\n```html\n<!-- c -->\n```\n"


def test_every_field_is_listed_with_default_meaning_and_evidence() -> None:
    module = loaded("site/fields.py")
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    for mark in module.MARK.finditer(page):
        of = module.named(mark["of"])
        listed = module.entries(of)
        assert [entry.name for entry in listed] == [each.name for each in fields(of)]
        assert all(entry.meaning for entry in listed)
        assert module.evidence(mark["evidence"]).keys() <= {entry.name for entry in listed}
    text = module.with_fields(page)
    assert not module.MARK.search(text)
    assert "- **`min_share`** = `0.05`" in text
    assert re.search(r"\*\*`min_units`\*\*.*\n.*\*Evidence: none\.\*", text)


def test_every_part_of_a_configuration_has_its_list() -> None:
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"<!-- fields: [\w.]*?(\w+)\n", page))
    from dpap.experiment.config import ExperimentConfig

    parts = {
        type(each.default_factory()).__name__
        for each in fields(ExperimentConfig)
        if callable(each.default_factory)
    }
    assert parts | {"ExperimentConfig", "Decay"} == listed


class Loader(yaml.SafeLoader):
    """Leaves out what only MkDocs can make."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def test_every_page_is_in_the_navigation() -> None:
    def leaves(part: Any) -> Iterator[str]:
        if isinstance(part, str):
            yield part
        else:
            for inner in part.values() if isinstance(part, dict) else part:
                yield from leaves(inner)

    navigation = set(leaves(yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)["nav"]))
    pages = {
        page.relative_to(DOCS) for pattern in ("*.md", "*/*.md", "*/*.ipynb") for page in DOCS.glob(pattern)
    }
    here = {page.with_suffix(".md").as_posix() for page in pages}
    outside = {
        loaded("site/repository.py").place(page)
        for page in ("README.md", *loaded("site/repository.py").OUTSIDE)
    }
    assert here - navigation == set()
    assert navigation - here - outside == set()


def test_the_picture_is_drawn_by_its_program() -> None:
    drawn = loaded("pictures/how_it_works.py").picture()
    assert drawn == (DOCS / "pictures" / "how_it_works.svg").read_text(encoding="utf-8")


def test_notebooks_are_pages() -> None:
    as_page = loaded("site/notebooks.py").as_page
    text, pictures = as_page(DOCS / "notebooks" / "spiking_digits.ipynb")
    assert text.startswith("# A spiking network on digits")
    assert list(pictures) == ["spiking_digits-1.png", "spiking_digits-2.png"]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures.values())
    assert "](spiking_digits-2.png)" in text


def test_notebooks_run_and_hold_the_outputs_of_their_code() -> None:
    pytest.importorskip("nbclient", reason="runs the notebooks; pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="runs the notebooks; pip install nbclient ipykernel")
    runner = loaded("site/run_notebooks.py")
    assert len(runner.NOTEBOOKS) == 3
    for path, notebook in zip(runner.NOTEBOOKS, runner.run(runner.NOTEBOOKS), strict=True):
        assert notebook.metadata["dpap"]["code"] == runner.digest(notebook), (
            f"{path.name}: run `make notebooks`"
        )
        assert any(cell.cell_type == "code" and cell.outputs for cell in notebook.cells)
