"""What MkDocs calls while it builds the site (mkdocs.yml)."""

from typing import Any

from equations import as_mathml
from fields import with_fields
from mkdocs.structure.files import File, Files
from notebooks import as_page
from repository import OUTSIDE, ROOT, for_site, links, place, shown, target, without_comments

_origins: dict[str, str] = {}
"""The path in the repository of each page of the site that does not lie at the same place below docs/."""
_shown: set[str] = set()
"""Pages that are made for the site, with its links."""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside docs/, the notebooks, and what pages link to."""
    _origins.clear()
    _shown.clear()
    texts = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    texts |= {path: (ROOT / path).read_text(encoding="utf-8") for path in ("README.md", *OUTSIDE)}
    for path in sorted(ROOT.glob("docs/notebooks/*.ipynb")):
        name = path.relative_to(ROOT).as_posix()
        texts[name], pictures = as_page(path)
        for picture, data in pictures.items():
            files.append(File.generated(config, f"notebooks/{picture}", content=data))
    for path in sorted({target(page, link) for page, text in texts.items() for link in links(text)}):
        # folders of docs/ are listed, and files outside of it shown; the others are on the site, or are no file
        listed = path.startswith("docs/") and (ROOT / path).is_dir()
        if path not in texts and (listed or (not path.startswith("docs/") and (ROOT / path).is_file())):
            texts[path] = shown(path)
            _shown.add(place(path))
    for path, text in texts.items():
        uri = place(path)
        if path != f"docs/{uri}":
            _origins[uri] = path
            files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in tables of fields and equations, leave out what readers do not see, and lead links to the site."""
    uri = page.file.src_uri
    if uri in _shown:
        return markdown
    path = _origins.get(uri, f"docs/{uri}")
    return as_mathml(for_site(path, without_comments(with_fields(markdown))))
