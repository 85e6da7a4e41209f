"""Modules with values per unit of weight layers, such as normalisations, and to which units the values belong."""

import torch
from torch import Tensor, nn

from dpap.anatomy.hidden_state import state_buffers
from dpap.anatomy.layers import is_depthwise, layer_kind
from dpap.anatomy.ownership import Replay, replayed, tensors_of, unit_axes
from dpap.anatomy.pytrees import Inputs
from dpap.anatomy.recurrent import with_parts
from dpap.anatomy.staining.codes import MIXED, NO_UNIT
from dpap.anatomy.staining.dye import RETURNED, Site
from dpap.anatomy.staining.stain import Stained
from dpap.anatomy.wiring import Attachment


def attachments_of(model: nn.Module, example_inputs: Inputs, stained: Stained) -> dict[str, Attachment]:
    """Modules with a value per feature; one that is called several times belongs to the units of every call."""
    modules = with_parts(model)
    widths: dict[str, int] = {}
    for site, feeds in stained.feeds.items():
        if site.module == RETURNED:
            continue
        module = modules[site.module]
        if site.module in stained.mixing or (layer_kind(module) is not None and not is_depthwise(module)):
            continue
        widths.setdefault(site.module, len(next(iter(feeds.values()))))
    tensors = _unit_tensors(model, example_inputs, widths, stained)
    attachments: dict[str, Attachment] = {}
    for site, feeds in stained.feeds.items():
        name = site.module
        if not tensors.get(name):
            continue
        features = len(next(iter(feeds.values())))
        gates = stained.gates.get(site, {})
        known = attachments.get(name)
        if known is None:
            attachments[name] = Attachment(
                name, features, dict(feeds), dict(gates), modules[name], tensors[name]
            )
        elif known.features == features:
            known.gates = {}
            for source, fed in feeds.items():
                known.feeds[source] = _joined(known.feeds[source], fed) if source in known.feeds else fed
    return attachments


def _unit_tensors(
    model: nn.Module, example_inputs: Inputs, widths: dict[str, int], stained: Stained
) -> dict[str, dict[str, int]]:
    """Module -> its parameters and buffers with a value per feature -> the axis that counts them."""
    modules = dict(model.named_modules())
    axes, candidates = {}, {}
    for name, width in widths.items():
        module = modules[name]
        sized = [key for key, each in tensors_of(module).items() if width in each.shape]
        kind = layer_kind(module)
        axis = stained.axis.get(Site(name)) if kind is None else kind.activity_axis
        if sized and axis is not None:
            axes[name], candidates[name] = axis, sized
    found: dict[str, dict[str, int]] = {}

    def use(name: str, replay: Replay) -> None:
        axis = None if layer_kind(modules[name]) is None else axes[name]
        state = state_buffers(modules[name])
        own = [key for key in candidates[name] if key not in state or replay.keeps(key)]
        found[name] = unit_axes(replay, own, widths[name], axis)

    replayed(model, example_inputs, axes, use, stained.training_paths)
    return found


def _joined(one: Tensor, other: Tensor) -> Tensor:
    """Units that feed the features in either of two calls."""
    both = torch.where(one == other, one, MIXED)
    return torch.where(one == NO_UNIT, other, torch.where(other == NO_UNIT, one, both))
