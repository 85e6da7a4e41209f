"""The format of a pruner's state, and how states of earlier versions are read."""

from typing import Any

VERSION = 2
"""Of the state that `Pruner.state_dict` gives. Version 1, of dpap 0.1.0, had no such number and other names."""

RENAMED = {
    "units_at_birth": "initial_units",
    "origin": "original_index",
    "living": "masks",
    "memories": "statistics",
    "vitality": "survival",
    "traffic": "activity",
}
"""Names of version 1 -> those of version 2, whose values are the same."""


def upgraded(state: dict[str, Any]) -> dict[str, Any]:
    """A state of any known version, in the names of this one.

    Raises:
        ValueError: where it is of a later version, or no state of a pruner.
    """
    version = state.get("version", 1)
    if version == 1:
        state = {"version": VERSION, **{RENAMED.get(name, name): value for name, value in state.items()}}
    elif version != VERSION:
        raise ValueError(
            f"this state has version {version!r}; this dpap reads versions 1 to {VERSION}: load it with the dpap that "
            "saved it, or a later one"
        )
    missing = sorted({*RENAMED.values(), "epoch"} - state.keys())
    if missing:
        raise ValueError(
            f"this is no state of a Pruner, for it lacks {', '.join(missing)}: give what Pruner.state_dict() returned"
        )
    return state
