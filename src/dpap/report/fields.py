"""The fields of JSON objects by the type that each must have."""

from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

from dpap.experiment.errors import UserError
from dpap.experiment.sealed import json_object

Kind = TypeVar("Kind")
LARGEST = 1e15
"""No count, time or cost of a run is larger; sums and products of such numbers stay finite, and whole ones exact."""


def finite(value: float, where: str) -> float:
    """A number of a run, which `where` names.

    Raises:
        UserError: where it is not finite, or larger than any.
    """
    if not abs(value) <= LARGEST:
        raise UserError(f"{where}: expected a number of at most {LARGEST:g}, got {value!r:.60}")
    return float(value)


class Fields:
    """The fields of one JSON object, each by the type that it must have; absent and null are None.

    Every method raises UserError where a field has another type.
    """

    def __init__(self, values: Any, where: str) -> None:
        self.values = json_object(values, where)
        self.where = where

    def _typed(self, key: str, types: tuple[type, ...], expected: str) -> Any:
        value = self.values.get(key)
        if value is not None and (not isinstance(value, types) or isinstance(value, bool)):
            raise UserError(f"{self.where}: expected {expected} as “{key}”, got {value!r}")
        return value

    def number(self, key: str) -> float | None:
        """A number."""
        value = self._typed(key, (int, float), "a number")
        return None if value is None else finite(value, f"{self.where}, “{key}”")

    def whole(self, key: str) -> int | None:
        """A whole number."""
        value = self._typed(key, (int,), "a whole number")
        return None if value is None else int(finite(value, f"{self.where}, “{key}”"))

    def text(self, key: str) -> str | None:
        """Text."""
        value = self._typed(key, (str,), "text")
        return None if value is None else str(value)

    def mapping(self, key: str) -> dict[str, Any]:
        """An object as it is, empty where absent."""
        return dict(self._typed(key, (dict,), "an object") or {})

    def part(self, key: str) -> "Fields | None":
        """An object."""
        return Fields(self.values[key], f"{self.where}, {key}") if self.values.get(key) is not None else None

    def parts(self, key: str) -> list["Fields"]:
        """A list of objects, empty where absent."""
        entries = self._typed(key, (list,), "a list") or []
        return [Fields(entry, f"{self.where}, {key}[{i}]") for i, entry in enumerate(entries)]

    def need(self, key: str) -> int:
        """A whole number that must be there."""
        value = self.whole(key)
        if value is None:
            raise UserError(f"{self.where}: expected a whole number as “{key}”, got none")
        return value

    def fill(self, kind: type[Kind], /, **given: Any) -> Kind:
        """A dataclass: what is not `given` is read by the type that its field has."""
        types = {name: of for name, of in get_type_hints(kind).items() if name not in given}
        return kind(**given, **{name: READERS[of](self, name) for name, of in types.items()})


READERS: dict[Any, Callable[[Fields, str], Any]] = {
    int: Fields.need,
    int | None: Fields.whole,
    float | None: Fields.number,
    str | None: Fields.text,
}
"""Type of a field of a dataclass -> how it is read."""
