"""Rehearse a removal before anything has died: what would not work is known from the start, and so is why."""

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from dpap.anatomy import Projection, Wiring
from dpap.anatomy.fates import spread_permanence
from dpap.anatomy.nested import Inputs
from dpap.surgery.compact import removed, what_remains
from dpap.surgery.living import Living
from dpap.surgery.silence import dead_tensors
from dpap.surgery.slicing import Kept
from dpap.surgery.witness import CompactionError, NothingFires


def rehearse(model: nn.Module, wiring: Wiring, example_inputs: Inputs) -> None:
    """Remove a unit of every projection on trial, and put everything back; only silence what cannot be removed.

    Code that fixes a number of channels, parameters that belong to no single layer, and whatever else the dye does
    not show, is found here. The fates of `wiring` are changed where needed, the network never is.

    Args:
        model: the network.
        wiring: its wiring.
        example_inputs: what its forward takes.
    """
    while True:
        candidates = [projection for projection in wiring.projections.values() if projection.leaves]
        if not candidates or _trial(model, wiring, candidates, example_inputs) is None:
            return
        found = False
        for projection in candidates:
            problem = _trial(model, wiring, [projection], example_inputs) if projection.leaves else None
            if problem is not None:
                projection.fate = "silenced" if projection.dies else "whole"
                projection.reason = f"a trial removal failed: {problem}"
                found = True
                spread_permanence(wiring)
        if not found:
            # each alone works, all together do not
            for projection in candidates:
                projection.fate, projection.reason = (
                    "silenced",
                    "a trial removal of several layers' units failed",
                )
            return


def _trial(
    model: nn.Module, wiring: Wiring, projections: list[Projection], example_inputs: Inputs
) -> str | None:
    """What goes wrong when a unit of each of some projections is removed; the network is as before afterwards."""
    living = _without_one_each(wiring, projections)
    kept = what_remains(wiring, living.removable(wiring))
    if kept.everything:
        return None
    with torch.no_grad():
        dead = dead_tensors(wiring, living)
        before = [tensor.data.clone() for tensor, _ in dead]
        for tensor, mask in dead:
            tensor.data.masked_fill_(mask, 0)
        try:
            return _problem(model, wiring, kept, example_inputs)
        finally:
            for (tensor, _), data in zip(dead, before, strict=True):
                tensor.data.copy_(data)


def _problem(model: nn.Module, wiring: Wiring, kept: Kept, example_inputs: Inputs) -> str | None:
    """What goes wrong when only what is kept remains; everything is put back."""
    # single precision is quick and almost always enough; where it is not, double precision decides
    quick = all(parameter.dtype == torch.float32 for parameter in model.parameters())
    for double in (False, True) if quick else (True,):
        problem = None
        try:
            undo, _ = removed(model, wiring, kept, (), example_inputs, double)
            undo()
        except NothingFires:
            pass
        except CompactionError as error:
            problem = str(error.__cause__ or error)
        if problem is None:
            return None
    return problem


def _without_one_each(wiring: Wiring, projections: list[Projection]) -> Living:
    """A life in which the last unit of each projection is dead, and with it all that can only leave together."""
    living = Living.at_birth(wiring, synapses=False, timesteps=False)
    for projection in projections:
        if not projection.dies:
            continue
        before = living.copy()
        units = living.units[projection.name]
        units.view(projection.groups, -1)[:, -1] = False
        while _drag_along(wiring, living.units):
            pass
        if any(not alive.any() for alive in living.units.values()):
            living = before
    return living


def _drag_along(wiring: Wiring, alive: dict[str, Bool[Tensor, "_"]]) -> bool:
    """Let die what shares a feature with the dead, or must leave a group as they do; whether there was anything."""
    changed = False

    def kill(feeds: dict[str, Tensor], features: Tensor) -> None:
        nonlocal changed
        for source, unit in feeds.items():
            if source in alive and wiring.projections[source].leaves:
                doomed = unit[features & (unit >= 0)].to(alive[source].device)
                if bool(alive[source][doomed].any()):
                    alive[source][doomed] = False
                    changed = True

    for reader in wiring.readers():
        dead = torch.zeros(reader.features, dtype=torch.bool)
        for source, unit in reader.feeds.items():
            if source in alive and wiring.projections[source].leaves:
                dead |= (unit >= 0) & ~alive[source].cpu()[unit.clamp(min=0)]
        if not dead.any():
            continue
        if isinstance(reader, Projection) and reader.groups > 1:
            dead = dead.view(reader.groups, -1).any(0).repeat(reader.groups)
        if len(reader.feeds) > 1 or (isinstance(reader, Projection) and reader.groups > 1):
            kill(reader.feeds, dead)
    for projection in wiring.projections.values():
        if projection.groups > 1 and projection.leaves:
            units = alive[projection.name].view(projection.groups, -1)
            level = units.all(0).expand_as(units)
            if bool((units != level).any()):
                units.copy_(level)
                changed = True
    return changed
