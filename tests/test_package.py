"""What is in the wheel and in the source distribution, and how the README reads on an index."""

import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
import types
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILD = "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"


@pytest.fixture(scope="module")
def setup() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("setup_of_dpap", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _files(folder: str, pattern: str = "*") -> set[str]:
    paths = (path.relative_to(ROOT) for path in (ROOT / folder).rglob(pattern) if path.is_file())
    return {
        path.as_posix()
        for path in paths
        if not any(part.startswith((".", "__pycache__")) for part in path.parts) and path.suffix != ".pyc"
    }


def _has_setuptools() -> bool:
    try:
        return int(version("setuptools").split(".")[0]) >= 77
    except PackageNotFoundError:
        return False


@pytest.mark.skipif(not _has_setuptools(), reason="needs setuptools 77")
def test_the_distributions_hold_what_they_should(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("*.egg-info", "__pycache__")
    for name in ("docs", "examples", "src"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    ran = subprocess.run([sys.executable, "-c", BUILD], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    (sdist,), (wheel,) = (tmp_path / "dist").glob("*.tar.gz"), (tmp_path / "dist").glob("*.whl")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    package = {path for path in _files("src") if ".egg-info/" not in path}
    expected = package | _files("docs") | _files("examples")
    assert (
        expected | {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "setup.py", "pyproject.toml"}
        <= names
    )
    assert not [name for name in names if name.startswith("tests/")]
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.startswith("dpap/")}
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        text = archive.read(metadata).decode()
    assert inside == {path.removeprefix("src/") for path in package}
    assert {"dpap/recipes/mnist_snn_2fc.yaml", "dpap/recipes/grids/digits.yaml"} <= inside
    head, _, readme = text.partition("\n\n")
    assert "Author: The dpap developers" in head and "License-Expression: MIT" in head
    assert "import dpap" in readme and "<!--" not in readme


def test_links_of_the_readme_become_text_or_absolute(setup: types.ModuleType) -> None:
    readme = (
        "# dpap\n\n<!-- summary -->\n| a |\n| - |\n<!-- end -->\n\nSee [*results*](docs/results.md#all), [here](#top) "
        "and [paper](https://doi.org/1).\n![figure](docs/a.png)\n\n<!-- setup:\nx = 1\n\ny = 2\n-->\n\n"
        "```python\na[0](b)  # [no](link)\n```\n\n[licence](LICENSE)\n"
    )
    assert setup.for_index(readme, None) == (
        "# dpap\n\n| a |\n| - |\n\nSee *results*, [here](#top) and [paper](https://doi.org/1).\n\n"
        "```python\na[0](b)  # [no](link)\n```\n\nlicence\n"
    )
    page = setup.for_index(readme, "https://forge.example/dpap/")
    assert "[*results*](https://forge.example/dpap/blob/HEAD/docs/results.md#all), [here](#top)" in page
    assert "![figure](https://forge.example/dpap/raw/HEAD/docs/a.png)" in page
    assert "a[0](b)  # [no](link)" in page


@pytest.mark.parametrize("source", [None, "https://forge.example/dpap"])
def test_the_readme_has_no_relative_link_on_an_index(setup: types.ModuleType, source: str | None) -> None:
    page = setup.for_index((ROOT / "README.md").read_text(encoding="utf-8"), source)
    prose = re.sub(r"(?ms)^```.*?^```$|`[^`\n]*`", "", page)
    links = re.findall(r"\]\(([^)\s]+)\)", prose)
    assert all(link.startswith(("https://", "#")) for link in links) and len(links) >= 3
    assert "<!--" not in page
    assert page.count("```") == (ROOT / "README.md").read_text(encoding="utf-8").count("```")
