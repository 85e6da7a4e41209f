"""Checks of the shapes in annotations, as tests run: of functions and dataclasses that have such, and of no others."""

from collections.abc import Callable
from inspect import isclass
from pathlib import Path
from typing import Any, get_args

import jaxtyping

_jaxtyped = jaxtyping.jaxtyped


def check_shapes(source: Path) -> None:
    """Check the shapes of what is imported from now on.

    Args:
        source: folder of the package whose modules are checked.
    """
    shaped = [
        ".".join(path.relative_to(source).with_suffix("").parts)
        for path in sorted(source.rglob("*.py"))
        if "from jaxtyping import" in path.read_text(encoding="utf-8")
    ]
    # the hook would check every function of these modules, which costs many times what most of them do
    jaxtyping.jaxtyped = _where_shapes_are
    jaxtyping.install_import_hook(shaped, "beartype.beartype")


def _where_shapes_are(*, typechecker: Any) -> Callable[[Any], Any]:
    def decorate(decorated: Any) -> Any:
        annotations = getattr(decorated, "__annotations__", {})
        return _jaxtyped(decorated, typechecker=typechecker) if has_shape(annotations) else decorated

    return decorate


def has_shape(annotations: dict[str, Any]) -> bool:
    """Whether any of the annotations holds a shape."""
    return any(map(_is_shaped, annotations.values()))


def _is_shaped(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return "Tensor," in annotation
    if isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(map(_is_shaped, get_args(annotation)))
