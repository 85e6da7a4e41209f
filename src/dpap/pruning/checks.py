"""What is looked at while a network is pruned, and warned of: targets out of reach, deaths that do not hold."""

import warnings

from torch import nn

from dpap.anatomy import Wiring
from dpap.anatomy.observing.operations import check_countable
from dpap.anatomy.observing.recording import check_recordable
from dpap.anatomy.prunability import propagate_unremovable
from dpap.anatomy.pytrees import Inputs
from dpap.pruning.budget import TOLERANCE
from dpap.pruning.config import PruningConfig
from dpap.pruning.costs import CostLedger
from dpap.pruning.state import PruningState
from dpap.surgery.claims import not_silent
from dpap.surgery.trial import leave_whole


def check_observable(wiring: Wiring, state: PruningState, counts_operations: bool) -> None:
    """Check that what the criterion and the target ask for can be observed in a network.

    Raises:
        ValueError: where it cannot.
    """
    if counts_operations:
        check_countable(wiring)
    if state.observes_activity:
        check_recordable(wiring)


def check_reach(ledger: CostLedger, state: PruningState, config: PruningConfig) -> None:
    """Warn where the target is out of reach even with every layer at its floor."""
    if config.target is None:
        return
    most = ledger.reachable(config.target_of, state.masks, state.floors)
    if config.target > most + TOLERANCE:
        warnings.warn(
            f"the target, {config.target:.1%} of the {config.target_of.replace('_', ' ')}, is out of reach: at "
            f"most {most:.1%} can be pruned with min_units={config.min_units} and "
            f"min_share={config.min_share:g} of every layer; lower these or the target, or "
            "print the pruner's wiring to see which layers keep their units",
            stacklevel=4,
        )


def give_up_what_is_not_silent(
    model: nn.Module, wiring: Wiring, state: PruningState, example_inputs: Inputs
) -> bool:
    """Leave layers whole from now on of which dead units are not silent on the example, on any rank, with a warning.

    Returns:
        Whether there were any.
    """
    problems = not_silent(model, wiring, state.masks, example_inputs)
    names = list(state.masks.units)
    found = state.ranks.any("look whether the dead are silent", [name in problems for name in names])
    problems = {
        name: problems.get(name, "emit something on another rank")
        for name, anywhere in zip(names, found, strict=True)
        if anywhere
    }
    for name, what in problems.items():
        leave_whole(wiring, name, what)
        state.give_up(name)
        warnings.warn(
            f"units of {name} were silenced, but they {what} on the example inputs; they count as alive again, "
            f"from zero, and no more of this layer die ({wiring.layers[name].reason})",
            stacklevel=5,
        )
    if problems:
        propagate_unremovable(wiring)
    return bool(problems)
