"""Docstrings as the reference shows them."""

from typing import Any

from griffe import Extension, Object


class Examples(Extension):
    """Shows the sections `Example:` as code; by default only `Examples:` are."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called for everything that is loaded."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
