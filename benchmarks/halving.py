"""Half of a network's units die: what a benchmark of pruning does with a network that nobody trained."""

from collections.abc import Iterator

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from dpap.anatomy import Wiring, find_wiring
from dpap.anatomy.pytrees import Inputs
from dpap.surgery import Masks
from dpap.surgery.trial import try_removal


def find_and_try(model: nn.Module, inputs: Inputs) -> Wiring:
    """The wiring as `dpap.Pruner` finds it, with the result of a trial removal."""
    wiring = find_wiring(model, inputs)
    try_removal(model, wiring, inputs)
    return wiring


def depthwise_weights(wiring: Wiring, masks: Masks) -> int:
    """Weights of depthwise convolutions, which leave with the units that they filter."""
    return sum(
        tensor.numel()
        for attachment in wiring.attachments.values()
        if attachment.feeds.keys() & masks.units.keys()
        for tensor in attachment.module.parameters(recurse=False)
        if tensor.ndim > 1
    )


def train_norms(model: nn.Module) -> None:
    """Statistics, scales and shifts unlike initial ones; no layer that begins with zeros stays so."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():
            module.reset_parameters()
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.weight, module.running_var):
                if tensor is not None:
                    nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                if tensor is not None:
                    nn.init.normal_(tensor, std=0.2)


def mask_half(wiring: Wiring, masks: Masks, kept: float = 0.5) -> None:
    """Of every kind of unit that can leave, a random half dies, or all but the share that is `kept`.

    Units that feed the same feature leave together and are one; two of these are of a kind where they have units in
    the same layers and, of layers in groups, in the same groups.
    """
    names = [name for name in masks.units if wiring.layers[name].prunability == "prunable"]
    if not names:
        return
    first = dict(zip(names, np.cumsum([0] + [wiring.layers[name].units for name in names]), strict=False))
    total = sum(wiring.layers[name].units for name in names)
    pairs = [pair for reader in wiring.readers() for pair in together(reader.feeds, first)]
    one, other = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), dtype=int)
    linked = coo_array((np.ones(len(one)), (one, other)), shape=(total, total))
    _, group = connected_components(linked, directed=False)
    places: dict[int, set[tuple[str, str, int]]] = {}
    for name in names:
        layer = wiring.layers[name]
        for unit in range(layer.units):
            place = ("unit", name, unit * layer.groups // layer.units)
            places.setdefault(group[first[name] + unit], set()).add(place)
    for reader in wiring.layers.values():
        if reader.groups > 1:
            for name in reader.feeds.keys() & first.keys():
                for feature, unit in enumerate(reader.feeds[name].tolist()):
                    if unit >= 0:
                        place = ("feature", reader.name, feature * reader.groups // reader.features)
                        places[group[first[name] + unit]].add(place)
    kinds: dict[frozenset[tuple[str, str, int]], list[int]] = {}
    for number, where in places.items():
        kinds.setdefault(frozenset(where), []).append(number)
    random = np.random.default_rng(0)
    dying = [
        random.choice(numbers, int(len(numbers) * (1 - kept)), replace=False) for numbers in kinds.values()
    ]
    dead = np.isin(group, np.concatenate(dying))
    for name in names:
        own = dead[first[name] : first[name] + wiring.layers[name].units]
        masks.units[name][torch.from_numpy(own)] = False


def together(feeds: dict[str, Tensor], first: dict[str, int]) -> Iterator[np.ndarray]:
    """Pairs of numbers of units that feed one feature; where many do, every one and the one before it."""
    last = np.full(len(next(iter(feeds.values()), ())), -1)
    for name in feeds.keys() & first.keys():
        unit = feeds[name].numpy()
        here = unit >= 0
        both = here & (last >= 0)
        yield np.stack([last[both], first[name] + unit[both]])
        last[here] = first[name] + unit[here]
