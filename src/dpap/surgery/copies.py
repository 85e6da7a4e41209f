"""Copies of a network, such as moving averages of its weights, in which the same units die and are removed."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.optim import Optimizer

from dpap.anatomy import Wiring
from dpap.anatomy.recurrent import with_parts
from dpap.anatomy.views import FusedView
from dpap.surgery.masks import Masks
from dpap.surgery.silence import dead_tensors, impose, revived_weights, warn_of_revived
from dpap.surgery.slicing import Kept, keep_only


class Copies:
    """Networks of the same structure as another.

    They are silenced once when units die, and not held silent: an average of networks in which the dead are zero
    stays zero there once it is.

    Args:
        models: the copies, with the same names of modules and parameters.
        wiring: of the network that they follow.
        optimizers: of all of them.
    """

    def __init__(self, models: Sequence[nn.Module], wiring: Wiring, optimizers: Sequence[Optimizer]) -> None:
        self.models = tuple(models)
        self.wiring = wiring
        self.optimizers = optimizers

    @torch.no_grad()
    def impose(self, masks: Masks) -> None:
        """Silence what is silent in the followed network."""
        for model in self.models:
            impose(model, self._wiring_of(model), masks, self.optimizers)

    @torch.no_grad()
    def renew(self, masks: Masks) -> None:
        """Silence again what was written into the dead, as by an earlier state that was loaded; warns of it."""
        for model in self.models:
            wiring = self._wiring_of(model)
            revived = revived_weights(dead_tensors(wiring, masks))
            if revived:
                impose(model, wiring, masks, self.optimizers)
                warn_of_revived(revived, " in a copy")

    def keep_only(self, kept: Kept) -> Callable[[], None]:
        """Slice what is sliced in the followed network, before its wiring is renumbered.

        Returns:
            A function that undoes it.
        """
        undo = [keep_only(model, self._wiring_of(model), kept, self.optimizers) for model in self.models]

        def undo_all() -> None:
            for step in reversed(undo):
                step()

        return undo_all

    def _wiring_of(self, model: nn.Module) -> Wiring:
        parts = with_parts(model)
        layers, attachments = self.wiring.layers, self.wiring.attachments
        return replace(
            self.wiring,
            layers={
                name: replace(one, module=_like(one.module, parts[name])) for name, one in layers.items()
            },
            attachments={name: replace(one, module=parts[name]) for name, one in attachments.items()},
        )


def _like(module: nn.Module, other: nn.Module) -> nn.Module:
    """A layer of a copy, seen as that of the network is."""
    return module.of(other) if isinstance(module, FusedView) else other
