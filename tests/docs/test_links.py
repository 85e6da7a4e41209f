"""Every relative link of a page leads to a file, and every anchor to a heading."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = {"runs", "data", "build", "dist"}
CODE = re.compile(r"(?ms)^```.*?^```$|^<!-- setup:.*?^-->$|`[^`\n]*`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
MENTION = re.compile(r"\bdocs/[\w/]+\.md\b")


def found(*patterns: str) -> list[str]:
    paths = (path.relative_to(ROOT) for pattern in patterns for path in ROOT.rglob(pattern))
    return sorted(
        path.as_posix()
        for path in paths
        if not any(part.startswith(".") for part in path.parts) and path.parts[0] not in FOREIGN
    )


def anchors(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them, and of what a page of the reference shows."""
    names = set(re.findall(r"(?m)^::: (\S+)$", page.read_text()))
    for heading in re.findall(r"(?m)^#+ (.+)$", re.sub(r"(?ms)^```.*?^```$", "", page.read_text())):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", heading).strip().lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        names.add(next(each for each in (name, *(f"{name}-{n}" for n in range(1, 99))) if each not in names))
    return names


def test_anchors_are_those_of_github(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# N-MNIST, spiking 2Conv2FC, T = 8\n\n## `a` *b*\n## a b\n```sh\n# no heading\n```\n")
    assert anchors(page) == {"n-mnist-spiking-2conv2fc-t--8", "a-b", "a-b-1"}


@pytest.mark.parametrize("name", found("*.md"))
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name} links to {target}, which does not exist"
        assert there.is_relative_to(ROOT), f"{name} links to {target}, outside of the repository"
        assert not anchor or anchor in anchors(there), (
            f"{name} links to {target}: {sorted(anchors(there))} are there"
        )


def test_pages_that_code_names_exist() -> None:
    for name in found("*.py", "*.yaml", "*.toml", "*.cff"):
        for page in MENTION.findall((ROOT / name).read_text(encoding="utf-8")):
            assert (ROOT / page).is_file(), f"{name} names {page}"


def test_no_page_of_the_docs_is_lost() -> None:
    linked = set()
    for name in found("*.md"):
        page = ROOT / name
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            linked.add((page.parent / target.partition("#")[0]).resolve())
    docs = [ROOT / name for name in found("*.md") if name.startswith("docs/") and "evidence" not in name]
    assert [page.name for page in docs if page not in linked] == []
