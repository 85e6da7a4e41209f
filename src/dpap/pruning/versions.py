"""The format of a pruner's state, and how states of earlier versions are read."""

from typing import Any

from dpap.pruning.config import PruningConfig
from dpap.pruning.state_form import ADVICE, NO_STATE, check_dict, check_form

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

NUMBERS: dict[str, Any] = {"epoch": 0, "steps": 0, "steps_per_epoch": 0, "forwards": 0, "refused": False}
"""Values of a state that belong to no layer."""


def check_criterion(state: dict[str, Any], config: PruningConfig) -> None:
    """Check that a state was observed for the criterion that goes on with it.

    Raises:
        ValueError: where it was for another.
    """
    saved = state.get("config")
    saved = saved.get("criterion") if isinstance(saved, dict) else None
    if saved is not None and saved != config.criterion:
        raise ValueError(
            f"this state was observed for criterion {saved!r}, and this pruner has {config.criterion!r}, which sums "
            f"something else: make it with PruningConfig(criterion={saved!r}), or begin anew from the network alone, "
            "dpap.load_state(...)"
        )


def upgraded(state: dict[str, Any]) -> dict[str, Any]:
    """A state of any known version, in the names of this one.

    Raises:
        ValueError: where it is of a later version, or no state of a pruner.
    """
    check_dict(state, "it")
    version = state.get("version", 1)
    check_form(version, 1, "it, version")
    if version == 1:
        state = {"version": VERSION, **{RENAMED.get(name, name): value for name, value in state.items()}}
    elif version != VERSION:
        raise ValueError(
            f"this state has version {version!r}; this dpap reads versions 1 to {VERSION}: load it with the dpap that "
            "saved it, or a later one"
        )
    missing = sorted({*RENAMED.values(), "epoch"} - state.keys())
    if missing:
        raise ValueError(f"{NO_STATE}, for it lacks {', '.join(missing)}: {ADVICE}")
    present = {name: value for name, value in NUMBERS.items() if name in state}
    check_form({name: state[name] for name in present}, present, "it")
    epsilon = state.get("epsilon", {})
    check_dict(epsilon, "epsilon")
    check_form(epsilon, dict.fromkeys(epsilon, 0.0), "epsilon")
    return state
