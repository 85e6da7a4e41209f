"""Equations as MathML, which browsers show without a script.

A page holds them as the repository's view has them: blocks of the language `math`, and $`...`$ within a line.
"""

import re

from latex2mathml.converter import convert

_EQUATION = re.compile(r"(?ms)^```math\n(?P<block>.*?)^```$|\$`(?P<inline>[^`\n]+)`\$")


def as_mathml(text: str) -> str:
    """The text of a page with its equations as MathML."""
    return _EQUATION.sub(_one, text)


def _one(found: re.Match[str]) -> str:
    if found["block"] is None:
        return f"<span>{convert(found['inline'])}</span>"  # else it begins a block where it begins a line
    return f'<div class="equation">{convert(found["block"].strip(), display="block")}</div>'
