"""Try a removal before anything has died: so it is known from the start what would fail, and why."""

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from dpap.anatomy import WeightLayer, Wiring
from dpap.anatomy.prunability import propagate_unremovable
from dpap.anatomy.pytrees import Inputs
from dpap.surgery.compact import removed, what_remains
from dpap.surgery.equivalence import CompactionError, NothingFires
from dpap.surgery.masks import Masks
from dpap.surgery.silence import dead_tensors
from dpap.surgery.slicing import Kept


def try_removal(model: nn.Module, wiring: Wiring, example_inputs: Inputs) -> None:
    """Remove a unit of every weight layer on trial, and put everything back; what cannot be removed is only silenced.

    Code that fixes a number of channels, parameters that belong to no single layer, and all else that staining does
    not find, is found here. The prunability of layers of `wiring` is changed where needed, the network never is.

    Args:
        model: the network.
        wiring: its wiring.
        example_inputs: what its forward takes.
    """
    while True:
        candidates = [layer for layer in wiring.layers.values() if layer.removable]
        if not candidates or _trial(model, wiring, candidates, example_inputs) is None:
            return
        found = False
        for layer in candidates:
            problem = _trial(model, wiring, [layer], example_inputs) if layer.removable else None
            if problem is not None:
                layer.prunability = "silenced" if layer.can_die else "whole"
                layer.reason = f"a trial removal failed: {problem}"
                found = True
                propagate_unremovable(wiring)
        if not found:
            # each alone works, all together do not
            for layer in candidates:
                layer.prunability, layer.reason = (
                    "silenced",
                    "a trial removal of several layers' units failed",
                )
            return


def _trial(model: nn.Module, wiring: Wiring, layers: list[WeightLayer], example_inputs: Inputs) -> str | None:
    """What goes wrong when a unit of each of some layers is removed, or None; the network is as before afterwards."""
    masks = _without_one_each(wiring, layers)
    kept = what_remains(wiring, masks.removable(wiring))
    if kept.everything:
        return None
    with torch.no_grad():
        dead = dead_tensors(wiring, masks)
        before = [tensor.data.clone() for tensor, _ in dead]
        for tensor, mask in dead:
            tensor.data.masked_fill_(mask, 0)
        try:
            return _problem(model, wiring, kept, example_inputs)
        finally:
            for (tensor, _), data in zip(dead, before, strict=True):
                tensor.data.copy_(data)


def _problem(model: nn.Module, wiring: Wiring, kept: Kept, example_inputs: Inputs) -> str | None:
    """What goes wrong when only what is kept remains, or None; everything is put back."""
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


def _without_one_each(wiring: Wiring, layers: list[WeightLayer]) -> Masks:
    """Masks in which the last unit of each layer is dead, and with it all that can only leave together."""
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    for layer in layers:
        if not layer.can_die:
            continue
        before = masks.copy()
        units = masks.units[layer.name]
        units.view(layer.groups, -1)[:, -1] = False
        while _mask_companions(wiring, masks.units):
            pass
        if any(not alive.any() for alive in masks.units.values()):
            masks = before
    return masks


def _mask_companions(wiring: Wiring, alive: dict[str, Bool[Tensor, "_"]]) -> bool:
    """Mask what shares a feature with the dead, or must leave its group as they do; returns whether there was any."""
    changed = False

    def mask(feeds: dict[str, Tensor], features: Tensor) -> None:
        nonlocal changed
        for source, unit in feeds.items():
            if source in alive and wiring.layers[source].removable:
                companions = unit[features & (unit >= 0)].to(alive[source].device)
                if bool(alive[source][companions].any()):
                    alive[source][companions] = False
                    changed = True

    for reader in wiring.readers():
        dead = torch.zeros(reader.features, dtype=torch.bool)
        for source, unit in reader.feeds.items():
            if source in alive and wiring.layers[source].removable:
                dead |= (unit >= 0) & ~alive[source].cpu()[unit.clamp(min=0)]
        if not dead.any():
            continue
        if isinstance(reader, WeightLayer) and reader.groups > 1:
            dead = dead.view(reader.groups, -1).any(0).repeat(reader.groups)
        if len(reader.feeds) > 1 or (isinstance(reader, WeightLayer) and reader.groups > 1):
            mask(reader.feeds, dead)
    for names in wiring.levels():
        most = max((int((~alive[name]).sum()) for name in names if name in alive), default=0)
        for name in names if most else ():
            level = alive.get(name)
            if level is not None and wiring.layers[name].removable and int((~level).sum()) < most:
                level[level.nonzero().flatten()[-(most - int((~level).sum())) :]] = False
                changed = True
    for layer in wiring.layers.values():
        if layer.groups > 1 and layer.removable:
            units = alive[layer.name].view(layer.groups, -1)
            level = units.all(0).expand_as(units)
            if bool((units != level).any()):
                units.copy_(level)
                changed = True
    return changed
