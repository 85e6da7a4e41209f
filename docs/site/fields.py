"""Lists of configuration fields, from the dataclasses and their docstrings.

A page says where one stands by a comment: the class, then the evidence of those fields that have any.

    <!-- fields: dpap.PruningConfig
    memory: [constants](results/constants.md#the-default-rule)
    -->
"""

import re
from dataclasses import MISSING, Field, fields, is_dataclass
from importlib import import_module
from typing import Any, NamedTuple

from docstring_parser import parse

MARK = re.compile(r"(?ms)^<!-- fields: (?P<of>[\w.]+)\n(?P<evidence>.*?)^-->$")


class Entry(NamedTuple):
    """A field of a configuration: its name, its default and its meaning, both in Markdown."""

    name: str
    default: str
    meaning: str


def entries(of: type) -> list[Entry]:
    """The fields of a dataclass, in order.

    Raises:
        KeyError: where its docstring leaves one out.
    """
    documented = {
        name.strip(): " ".join(str(item.description).split())
        for item in parse(of.__doc__ or "").params
        for name in item.arg_name.split(",")
    }
    return [Entry(each.name, _default(each), documented[each.name]) for each in fields(of)]


def named(path: str) -> Any:
    """What a dotted path names."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def evidence(lines: str) -> dict[str, str]:
    """What the comment says about the evidence of fields: one a line."""
    return {
        name.strip(): where.strip() for name, where in (line.split(":", 1) for line in lines.splitlines())
    }


def with_fields(text: str) -> str:
    """The text of a page, with a list in the place of each comment."""
    return MARK.sub(_listed, text)


def _listed(mark: re.Match[str]) -> str:
    known = evidence(mark["evidence"])
    lines = []
    for name, default, meaning in entries(named(mark["of"])):
        shown = f" = {default}" if default else ""
        of_field = f" *Evidence: {known.get(name, 'none')}.*" if known else ""
        lines.append(f"- **`{name}`**{shown}  \n    {meaning}{of_field}\n")
    return "\n".join(lines)


def _default(field: Field[Any]) -> str:
    if field.default is not MISSING:
        return f"`{field.default!r}`"
    made = field.default_factory() if field.default_factory is not MISSING else MISSING
    return "" if made is MISSING or is_dataclass(made) else f"`{made!r}`"
