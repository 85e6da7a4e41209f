"""Which parameters of the modules around weight layers belong to their units: they die and leave with these."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import nn

from dpap.anatomy import Wiring
from dpap.anatomy.around import parameters_around
from dpap.anatomy.wiring import Attachment

Problems = Callable[[], dict[str, str]]
"""What of which layers is not silent when their units are, and these parameters."""


def attach(model: nn.Module, wiring: Wiring, names: Iterable[str], problems: Problems) -> bool:
    """Attach such parameters to layers that send something while their units are silent.

    A parameter belongs to a layer where this is silent with it, and not without it.

    Args:
        model: the network.
        wiring: its wiring, which is changed.
        names: of the layers.
        problems: called with other attachments in the wiring.

    Returns:
        Whether any was attached.
    """
    before = dict(wiring.attachments)
    proposed = _proposed(model, wiring, names)
    wiring.attachments |= proposed
    left = problems() if proposed else {}
    found = {}
    for path, attachment in proposed.items():
        (name,) = attachment.feeds
        if name not in left:
            tensors = dict(attachment.tensors)
            for key in attachment.tensors if len(tensors) > 1 else ():
                fewer = {other: axis for other, axis in tensors.items() if other != key}
                wiring.attachments[path] = replace(attachment, tensors=fewer)
                if name not in problems():
                    tensors = fewer
            found[path] = replace(attachment, tensors=tensors)
    wiring.attachments = before | found
    return bool(found)


def _proposed(model: nn.Module, wiring: Wiring, names: Iterable[str]) -> dict[str, Attachment]:
    """Path of a module around a layer -> its parameters with as many values as the layer has units."""
    units = {name: wiring.layers[name].units for name in names}
    proposed = {}
    for path, (first, *_) in parameters_around(model, units).items():
        if path not in wiring.attachments:
            feeds = {first.layer: torch.arange(units[first.layer])}
            proposed[path] = Attachment(path, units[first.layer], feeds, {}, first.module, first.tensors)
    return proposed
