"""What a saved state has to look like, compared with the state of what it is loaded into."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

NO_STATE = "this is no state of a Pruner"
ADVICE = "give what Pruner.state_dict() returned"


def check_form(given: Any, own: Any, where: str) -> None:
    """Check that a value has the form of another: tensors of its shape, numbers, and dicts that have all its keys.

    Args:
        given: from a state that is loaded.
        own: the present value.
        where: it stands in the state.

    Raises:
        ValueError: where it has not.
    """
    if isinstance(own, dict):
        check_dict(given, where)
        missing = sorted(own.keys() - given.keys())
        if missing:
            raise ValueError(f"{NO_STATE}, for {where} lacks {', '.join(missing)}: {ADVICE}")
        for key, value in own.items():
            check_form(given[key], value, f"{where}, {key}")
    elif isinstance(own, Tensor):
        _check_tensor(given, own, where)
    elif isinstance(own, list):
        if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
            raise _unlike("a list of names", given, where)
    elif isinstance(own, bool):
        if not isinstance(given, bool):
            raise _unlike("True or False", given, where)
    elif isinstance(own, int):
        if not isinstance(given, int) or isinstance(given, bool) or given < 0:
            raise _unlike("a number that counts", given, where)
    elif not isinstance(given, int | float) or isinstance(given, bool):
        raise _unlike("a number", given, where)


def check_dict(given: Any, where: str) -> None:
    """Check that a part of a state holds values by name.

    Raises:
        ValueError: where it does not.
    """
    if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
        raise _unlike("values by name", given, where)


def check_counts(given: Any, where: str) -> None:
    """Check that a part of a state holds numbers that count, by name.

    Raises:
        ValueError: where it does not.
    """
    check_dict(given, where)
    check_form(given, dict.fromkeys(given, 0), where)


def check_index(given: Any, units: Any, where: str) -> None:
    """Check that a tensor numbers some units of the dense network.

    Args:
        given: the numbers.
        units: how many there were.
        where: it stands in the state.

    Raises:
        ValueError: where it does not.
    """
    check_form(units, 0, f"initial_units of {where}")
    if not isinstance(given, Tensor) or given.ndim != 1 or given.dtype != torch.int64:
        raise _unlike("the numbers of units", given, where)
    if len(given.unique()) != len(given) or (
        len(given) and not 0 <= int(given.min()) <= int(given.max()) < units
    ):
        raise ValueError(
            f"{NO_STATE}, for {where} holds other numbers than those of some of {units} units: {ADVICE}"
        )


def check_operations(given: Any, features: Mapping[str, int], names: Collection[str], where: str) -> None:
    """Check that a part of a state holds what arrived at weight layers.

    Args:
        given: from a state that is loaded.
        features: of each layer of the network.
        names: of values that a layer may have.
        where: it stands in the state.

    Raises:
        ValueError: where it does not.
    """
    check_dict(given, where)
    strange = sorted(given.keys() - features.keys())
    for name, values in given.items():
        if name in features:
            each = torch.zeros(features[name], dtype=torch.float64)
            check_dict(values, f"{where}, {name}")
            numbers = dict.fromkeys(values.keys() - {"operations", "magnitude"}, 0.0) | {"step": 0.0}
            check_form(values, {"operations": each, "magnitude": each, **numbers}, f"{where}, {name}")
            strange += sorted(values.keys() - names)
    if strange:
        raise ValueError(f"{NO_STATE} of this network, for {where} has {', '.join(strange)}: {ADVICE}")


def _check_tensor(given: Any, own: Tensor, where: str) -> None:
    kinds = ("is_floating_point", "is_complex")
    if not isinstance(given, Tensor) or given.layout != torch.strided:
        raise _unlike("a tensor", given, where)
    if given.shape != own.shape:
        raise ValueError(
            f"{NO_STATE} of this network, for {where} must have shape {tuple(own.shape)}; got {tuple(given.shape)}: "
            "load it into a pruner of the configuration and the network that it was saved with"
        )
    if any(getattr(given, kind)() != getattr(own, kind)() for kind in kinds) or (
        (given.dtype == torch.bool) != (own.dtype == torch.bool)
    ):
        raise _unlike(str(own.dtype), given.dtype, where)


def _unlike(expected: str, given: Any, where: str) -> ValueError:
    shown = type(given).__name__ if isinstance(given, Tensor | dict | list) else f"{given!r:.60}"
    return ValueError(f"{NO_STATE}, for {where} must be {expected}; got {shown}: {ADVICE}")
