"""Checks of the shapes in annotations, as tests run: of functions and dataclasses that have such, and of no others."""

from collections.abc import Callable
from functools import wraps
from inspect import isclass, isfunction
from itertools import count
from pathlib import Path
from typing import Any, get_args

import jaxtyping

_jaxtyped = jaxtyping.jaxtyped
ALL, EVERY = 1000, 20
"""So many calls of a function are all checked, and one in so many of the rest: of some there are hundreds of thousands,
and a check takes as long as ten of them."""


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
        if not has_shape(getattr(decorated, "__annotations__", {})):
            return decorated
        checked = _jaxtyped(decorated, typechecker=typechecker)
        return _sampled(decorated, checked) if isfunction(decorated) else checked

    return decorate


def _sampled(function: Callable[..., Any], checked: Callable[..., Any]) -> Callable[..., Any]:
    """A function that checks its first calls, and one in `EVERY` of those that follow."""
    calls = count()

    @wraps(function)
    def sampled(*args: Any, **options: Any) -> Any:
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **options)
        number = next(calls)
        return (checked if number < ALL or number % EVERY == 0 else function)(*args, **options)

    return sampled


def has_shape(annotations: dict[str, Any]) -> bool:
    """Whether any of the annotations holds a shape."""
    return any(map(_is_shaped, annotations.values()))


def _is_shaped(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return "Tensor," in annotation
    if isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(map(_is_shaped, get_args(annotation)))
