"""The code of the pages: Python blocks run, YAML blocks are recipes, shell blocks parse.

Blocks of a page share their names, in order, with what its comments `<!-- setup: ... -->` define. A block that begins
with `# NAME.py` is also a module of that name.
Blocks that import a framework which is not installed are left out, and the page's test says so by being skipped.
"""

import ast
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest

import dpap.anatomy.layers
import dpap.anatomy.neurons
import dpap.cli
import dpap.data.registry
import dpap.models
import dpap.plasticity
from dpap.experiment.config import ExperimentConfig, load_config

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    page.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "docs/results/*.md", "docs/extending/*.md", "*/README.md")
    for page in sorted(ROOT.glob(pattern))
    if not page.relative_to(ROOT).parts[0].startswith((".", "runs", "data"))
]
CODE = re.compile(r"(?ms)^<!-- (setup):\n(.*?)^-->$|^```(\w*)\n(.*?)^```$")
REGISTRIES: tuple[dict[Any, Any], ...] = (
    dpap.plasticity.CRITERIA,
    dpap.anatomy.layers._REGISTRY,
    dpap.anatomy.neurons._REGISTRY,
    dpap.data.registry.DATASETS,
    dpap.models.PRESETS,
)
FRAMEWORKS = {"lightning", "accelerate", "transformers", "skorch", "onnx", "onnxscript", "onnxruntime", "nir"}
"""What the tests do without."""


class Block(NamedTuple):
    """A block of code: its language ("setup" for a comment), its text, and the line before it."""

    language: str
    code: str
    line: int


def blocks(page: str) -> Iterator[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in CODE.finditer(text):
        language, code = (part for part in found.groups() if part is not None)
        yield Block(language, code, text[: found.start()].count("\n") + 1)


def with_code(*languages: str) -> list[str]:
    return [page for page in PAGES if any(block.language in languages for block in blocks(page))]


def commands(page: str) -> list[tuple[str, list[str]]]:
    """Where each command of a page stands, and its words."""
    found = []
    for block in blocks(page):
        if block.language in ("sh", ""):
            joined = re.sub(r"\\\n\s*", lambda cut: " " + "\0" * cut[0].count("\n"), block.code)
            line = block.line
            for row in joined.splitlines():
                line += 1
                words = shlex.split(row.replace("\0", ""), comments=True)
                if words:
                    found.append((f"{page}:{line}", words))
                line += row.count("\0")
    return found


def absent(code: str) -> set[str]:
    """The frameworks that a block imports, itself or by a module of ours of that name, and that are not there."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            modules |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(str(node.module))
    named = {module.removeprefix("dpap.integrations.").split(".")[0] for module in modules}
    return {name for name in named & FRAMEWORKS if find_spec(name) is None}


@pytest.fixture
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder from which modules can be imported; what is registered or imported meanwhile is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with ExitStack() as stack:
        for registry in REGISTRIES:
            stack.enter_context(patch.dict(registry))
        yield tmp_path
    for module in tmp_path.glob("*.py"):
        sys.modules.pop(module.stem, None)


def test_pages_are_found() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/results.md", "docs/extending/criterion.md"} < set(PAGES)
    assert {"README.md", "docs/extending/dataset.md"} < set(with_code("python"))


WHOLE = ("docs/start.md",)
"""Pages of which each block runs by itself."""


@pytest.mark.parametrize("page", with_code("python"))
def test_python_blocks_run(page: str, own_modules: Path, unchecked: None) -> None:
    # shapes are checked by the tests of the modules; here that would take most of the time
    names: dict[str, Any] = {"__name__": "__main__"}
    left_out: set[str] = set()
    for block in blocks(page):
        if block.language not in ("python", "setup"):
            continue
        if missing := absent(block.code):
            left_out |= missing
            continue
        module = re.match(r"# (\w+\.py)\n", block.code)
        if module:
            (own_modules / module[1]).write_text(block.code)
        if page in WHOLE:
            names = {"__name__": "__main__"}
        # empty lines before it, so that an error names the line of the page
        exec(compile("\n" * block.line + block.code, page, "exec"), names)
    if left_out:
        pytest.skip(f"ran all blocks but those of {', '.join(sorted(left_out))}, not installed")


def test_blocks_of_frameworks_that_are_absent_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.find_spec", lambda name: None)
    assert absent("import lightning.pytorch as pl\nfrom dpap.integrations.skorch import PrunerCallback") == {
        "lightning",
        "skorch",
    }
    assert absent("import dpap\nfrom torch import nn") == set()


@pytest.mark.parametrize("page", with_code("yaml"))
def test_yaml_blocks_are_recipes(page: str, own_modules: Path) -> None:
    for block in blocks(page):
        if block.language == "yaml":
            (own_modules / "recipe.yaml").write_text(block.code)
            load_config(own_modules / "recipe.yaml", allow_imports=True)


@pytest.mark.parametrize("page", with_code("sh", ""))
def test_shell_blocks_parse(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for where, (program, *words) in commands(page):
        match program:
            case "dpap":
                _parse_dpap(where, words, monkeypatch)
            case "python":
                _parse_script(where, words)
            case "make":
                targets = [word for word in words if "=" not in word]
                makefile = Path("Makefile").read_text()
                assert all(re.search(rf"(?m)^{target}:", makefile) for target in targets), where
            case "torchrun":
                place = words.index("dpap")
                assert words[place - 1] == "-m", where
                _parse_dpap(where, words[place + 1 :], monkeypatch)
            case "pip":
                assert words == ["install", "."], where
            case _:
                assert Path(program).is_file(), f"{where}: {program}"


def _parse_dpap(where: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run = []
    module = import_module(f"dpap.cli.{words[0]}")
    monkeypatch.setattr(module, "run", lambda *given: run.append(given))
    assert dpap.cli.main(words) == 0, where
    assert run, where


def _parse_script(where: str, words: list[str]) -> None:
    script = Path(words[0])
    assert script.is_file(), where
    known = script.read_text() + Path("benchmarks/timing.py").read_text()
    flags = [word for word in words if word.startswith("--")]
    given = {"config", "recipe"} | {one.name for one in fields(ExperimentConfig)}
    known_fields = given if "add_experiment_flags" in known else set()
    for flag in flags:
        field = flag.removeprefix("--").partition(".")[0]
        assert f'"{flag}"' in known or field in known_fields, f"{where}: {flag}"
