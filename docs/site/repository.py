"""Where the files of the repository stand on the site, and links between them.

A page keeps the links that it has in the repository. On the site a page below docs/ stands where it lies there, the
README is the home page, other pages keep their path, and any other file that a page links to becomes a page that shows
it.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "examples/README.md",
    "benchmarks/README.md",
    "benchmarks/gpu/README.md",
)
"""Pages of the repository outside docs/ that the site has too, besides the README."""
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
_CODE = re.compile(r"(?ms)^([ ]*)(`{3,})[^\n]*\n.*?^\1\2[ ]*$|`[^`\n]+`")
_COMMENT = re.compile(r"(?ms)^(`{3,})[^\n]*\n.*?^\1[ ]*$|^<!-- .*?-->\n?")
"""A comment, or a block of code, which may hold what looks like one."""
LANGUAGES = {
    ".py": "python",
    ".yaml": "yaml",
    ".cff": "yaml",
    ".toml": "toml",
    ".jsonl": "json",
    ".csv": "text",
}


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """The text, changed wherever it is neither a block nor a span of code."""
    parts, at = [], 0
    for code in _CODE.finditer(text):
        parts += [change(text[at : code.start()]), code[0]]
        at = code.end()
    return "".join([*parts, change(text[at:])])


def without_comments(text: str) -> str:
    """The text without its comments: what tests run before a block, and the names of tables."""
    return _COMMENT.sub(lambda found: found[0] if found[1] else "", text)


def links(text: str) -> set[str]:
    """The relative links of a page, without anchors."""
    found: set[str] = set()

    def note(prose: str) -> str:
        found.update(link[1] for link in _LINK.finditer(prose))
        return prose

    outside_code(without_comments(text), note)
    return found


def place(path: str) -> str:
    """Where a file of the repository stands on the site.

    Example:
        >>> place("README.md"), place("docs/results/mnist.md"), place("CONTRIBUTING.md"), place("examples/README.md")
        ('index.md', 'results/mnist.md', 'contributing.md', 'examples/index.md')
        >>> place("examples/digits.py"), place("docs/evidence")
        ('source/examples/digits.py.md', 'evidence/index.md')
    """
    if path.startswith("docs/"):
        inner = path.removeprefix("docs/")
        if (ROOT / path).is_dir():
            return f"{inner}/index.md"
        return str(PurePosixPath(inner).with_suffix(".md")) if inner.endswith(".ipynb") else inner
    if path == "README.md":
        return "index.md"
    if path in OUTSIDE:
        return path.lower().replace("readme.md", "index.md")
    return f"source/{path}.md"


def target(page: str, link: str) -> str:
    """The path in the repository that a link of a page, itself a path in the repository, leads to.

    Example:
        >>> target("docs/results/mnist.md", "../../recipes/mnist_snn_2conv2fc.yaml")
        'recipes/mnist_snn_2conv2fc.yaml'
    """
    return os.path.normpath(PurePosixPath(page).parent / link).replace(os.sep, "/")


def for_site(page: str, text: str) -> str:
    """The text of a page with its links as they lead on the site, from where the page stands there.

    A folder without a page of its own, outside docs/, becomes plain text.
    """
    here = PurePosixPath(place(page)).parent

    def led(link: re.Match[str]) -> str:
        there = place(target(page, link[1]))
        return os.path.relpath(there, here).replace(os.sep, "/") + (link[2] or "")

    def rewritten(prose: str) -> str:
        prose = re.sub(r"(?<!!)\[([^]]*)\]\(([^)\s#:]+)\)", lambda found: _plain(page, found), prose)
        return _LINK.sub(led, prose)

    return outside_code(text, rewritten)


def _plain(page: str, link: re.Match[str]) -> str:
    path = target(page, link[2])
    folder = (ROOT / path).is_dir() and not path.startswith("docs/")
    return f"{link[1]} (`{path}`)" if folder else link[0]


def shown(path: str) -> str:
    """A page that shows a file of the repository, or lists those of a folder of docs/."""
    full = ROOT / path
    if full.is_dir():
        files = sorted(each for each in full.rglob("*") if each.is_file())
        names = [each.relative_to(full).as_posix() for each in files]
        return f"# {path}\n\n" + "".join(f"- [{name}]({name})\n" for name in names)
    return f"# {path}\n\n````{LANGUAGES.get(full.suffix, 'text')}\n{full.read_text(encoding='utf-8')}\n````\n"
