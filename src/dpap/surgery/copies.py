"""Copies of a network, such as moving averages of its weights, that follow what dies and leaves in it."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.optim import Optimizer

from dpap.anatomy import Wiring
from dpap.surgery.masks import Masks
from dpap.surgery.silence import impose
from dpap.surgery.slicing import Kept, keep_only


class Copies:
    """Networks of the same structure as another.

    They are silenced once when units die, and not held silent: what only averages networks in which the dead are
    zero, and is zero there itself, stays so.

    Args:
        models: the copies, with the same names of modules and parameters.
        wiring: of the network that they follow.
        optimizers: of all of them.
    """

    def __init__(self, models: Sequence[nn.Module], wiring: Wiring, optimizers: Sequence[Optimizer]) -> None:
        self.models = tuple(models)
        self.wiring = wiring
        self.optimizers = tuple(optimizers)

    @torch.no_grad()
    def impose(self, masks: Masks) -> None:
        """Silence what is silent in the other network."""
        for model in self.models:
            impose(model, self._wiring_of(model), masks, self.optimizers)

    def keep_only(self, kept: Kept) -> None:
        """Slice what is sliced in the other network, before its wiring is renumbered."""
        for model in self.models:
            keep_only(model, self._wiring_of(model), kept, self.optimizers)

    def _wiring_of(self, model: nn.Module) -> Wiring:
        parts = dict(model.named_modules())
        layers, attachments = self.wiring.layers, self.wiring.attachments
        return replace(
            self.wiring,
            layers={name: replace(one, module=parts[name]) for name, one in layers.items()},
            attachments={name: replace(one, module=parts[name]) for name, one in attachments.items()},
        )
