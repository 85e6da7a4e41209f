"""What pyproject.toml cannot say: the README as a page of a package index, where links into the repository end."""

import re
import sys
from pathlib import Path

from setuptools import setup

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

COMMENT = re.compile(r"(?ms)^<!--.*?-->\n")
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^]]*)\]\((?P<path>(?![a-z]+:|#)[^)\s]+)\)")
CODE = re.compile(r"(?ms)^```.*?^```$")


def for_index(readme: str, source: str | None) -> str:
    """The README without comments, and with links into the repository absolute, or as plain text.

    Args:
        readme: Markdown.
        source: address of the repository; files are expected below blob/HEAD and raw/HEAD. None: there is none.
    """

    def replaced(link: re.Match[str]) -> str:
        if source is None:
            return "" if link["image"] else link["text"]
        kind = "raw" if link["image"] else "blob"
        return f"{link['image']}[{link['text']}]({source.rstrip('/')}/{kind}/HEAD/{link['path']})"

    page = COMMENT.sub("", readme)
    code = CODE.findall(page)
    prose = [LINK.sub(replaced, part) for part in CODE.split(page)]
    whole = "".join(part + block for part, block in zip(prose, [*code, ""], strict=True))
    return re.sub(r"\n{3,}", "\n\n", whole)


if __name__ == "__main__":
    root = Path(__file__).parent
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    setup(
        long_description=for_index(
            (root / "README.md").read_text(encoding="utf-8"), project.get("urls", {}).get("Source")
        ),
        long_description_content_type="text/markdown",
    )
