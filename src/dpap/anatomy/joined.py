"""Which units leave together or not at all, and which layers that connects."""

from collections.abc import Iterator

import torch
from jaxtyping import Int64
from torch import Tensor

from dpap.anatomy.staining.codes import NO_UNIT
from dpap.anatomy.wiring import Reader, WeightLayer, Wiring


def unit_labels(wiring: Wiring) -> dict[str, Int64[Tensor, " unit"]]:
    """Layer -> number of the group that each unit is in: units that feed a feature together, or are tied, or are
    connected by such, leave together or not at all.
    """
    offsets, count = {}, 0
    for name, layer in wiring.layers.items():
        offsets[name] = count
        count += layer.units
    # one more, the largest, for sources that do not feed a feature
    label = torch.arange(count + 1)
    joined = []
    for columns in _columns(wiring):
        known = [
            torch.where(unit >= 0, offsets[source] + unit, count)
            for source, unit in columns
            if source in offsets
        ]
        if len(known) > 1:
            joined.append(torch.stack(known))
    changed = bool(joined)
    while changed:
        before = label.clone()
        for members in joined:
            least = label[members].amin(0).expand(members.shape)
            label.scatter_reduce_(0, members.flatten(), least.flatten(), "amin")
            label[count] = count
        changed = not torch.equal(before, label)
    return {name: label[offsets[name] : offsets[name] + layer.units] for name, layer in wiring.layers.items()}


def components(wiring: Wiring) -> list[list[str]]:
    """Weight layers in sets, within which what leaves one depends on what leaves another."""
    label = {name: name for name in wiring.layers}

    def root(name: str) -> str:
        while label[name] != name:
            name = label[name]
        return name

    for names in _coupled(wiring):
        for other in names[1:]:
            label[root(other)] = root(names[0])
    sets: dict[str, list[str]] = {}
    for name in wiring.layers:
        sets.setdefault(root(name), []).append(name)
    return list(sets.values())


def _columns(wiring: Wiring) -> Iterator[list[tuple[str, Tensor]]]:
    """Tables of units: those in a row leave together."""
    for reader in wiring.readers():
        yield list(reader.feeds.items())
    for tie in wiring.ties:
        yield list(tie)


def _coupled(wiring: Wiring) -> Iterator[list[str]]:
    """Layers that share a feature, or feed groups or are layers that must stay equally large, or are tied."""
    for reader in wiring.readers():
        sources = [name for name in reader.feeds if name in wiring.layers]
        if len(sources) > 1 and (_grouped(reader) or _overlap([reader.feeds[name] for name in sources])):
            yield sources
    for tie in wiring.ties:
        yield [name for name, _ in tie]
    yield from wiring.levels()
    yield from (list(pair) for pair in wiring.projections().items())


def _grouped(reader: Reader) -> bool:
    return isinstance(reader, WeightLayer) and reader.groups > 1


def _overlap(feeds: list[Tensor]) -> bool:
    return bool((torch.stack([unit != NO_UNIT for unit in feeds]).sum(0) > 1).any())
