"""Which units might leave together although no feature joins them: proposals, for a trial removal to decide on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from dpap.anatomy import Wiring
from dpap.anatomy.wiring import Tie, WeightLayer

MOST = 8
"""At most so many proposals are made for a set of layers, for each takes several trial removals."""


@dataclass(frozen=True)
class Proposal:
    """Units that might leave together.

    Attributes:
        ties: of units.
        unused: layers that are used by nothing, and would leave with what they are tied to.
    """

    ties: tuple[Tie, ...]
    unused: tuple[str, ...] = ()

    def apply(self, wiring: Wiring) -> None:
        """Let the units leave together."""
        wiring.ties = [*wiring.ties, *self.ties]
        for name in self.unused:
            layer = wiring.layers[name]
            layer.prunability = "follows"
            others = {other for tie in self.ties for other, _ in tie if other != name}
            layer.reason = f"it is unused, and its units leave with those of {', '.join(sorted(others))}"


def proposals(wiring: Wiring, names: Sequence[str]) -> Iterator[Proposal]:
    """Proposals for some layers, the most likely first."""
    made: list[Proposal] = [*_with_unused(wiring, names)]
    layers = [wiring.layers[name] for name in names if wiring.layers[name].removable]
    hints = {layer.name: _parts(wiring, layer) for layer in layers}
    made += [Proposal((_parted(layer, parts),)) for layer in layers for parts in hints[layer.name]]
    several = [_parted(layer, hints[layer.name][0]) for layer in layers if hints[layer.name]]
    if len(several) > 1:
        made.append(Proposal(tuple(several)))
    common = [2, 4, 3]
    made += [
        Proposal((_parted(layer, parts),))
        for layer in layers
        for parts in common
        if layer.units % parts == 0 and layer.units > parts and parts not in hints[layer.name]
    ]
    yield from made[:MOST]


def _parted(layer: WeightLayer, parts: int) -> Tie:
    """The k-th units of equal parts of a layer."""
    return tuple((layer.name, units) for units in torch.arange(layer.units).chunk(parts))


def _with_unused(wiring: Wiring, names: Sequence[str]) -> Iterator[Proposal]:
    """An unused layer, added to a stream that nothing reads any more, has as many units as others of the stream."""
    sizes = {wiring.layers[name].units: name for name in names if wiring.layers[name].removable}
    unused = [layer for layer in wiring.layers.values() if layer.unused and layer.units in sizes]
    tied = {
        layer.name: ((sizes[layer.units], torch.arange(layer.units)), (layer.name, torch.arange(layer.units)))
        for layer in unused
    }
    if len(unused) > 1:
        yield Proposal(tuple(tied.values()), tuple(tied))
    for name, tie in tied.items():
        yield Proposal((tie,), (name,))


def _parts(wiring: Wiring, layer: WeightLayer) -> list[int]:
    """In how many equal parts a layer's units seem to go their ways, by what reads them and in which order."""
    readers: list[list[str]] = [[] for _ in range(layer.units)]
    found: dict[int, None] = {}
    for reader in wiring.readers():
        unit = reader.feeds.get(layer.name)
        if unit is None:
            continue
        for each in unit[unit >= 0].unique().tolist():
            readers[each].append(str(reader.key))
    _note(found, layer.units, _runs([tuple(each) for each in readers]))
    for reader in wiring.layers.values():
        unit = reader.feeds.get(layer.name)
        if unit is not None and bool((unit >= 0).any()):
            order = unit[unit >= 0]
            steps = order.diff()
            _note(found, layer.units, _runs((order - torch.arange(len(order))).tolist()))
            # a transposed view: neighbours come from neighbouring parts
            stride = int(steps.mode().values) if len(steps) else 1
            if stride > 1 and layer.units % stride == 0:
                _note(found, layer.units, [stride] * (layer.units // stride))
    return list(found)


def _runs(values: list[object]) -> list[int]:
    """Lengths of runs of equal values."""
    lengths: list[int] = []
    for place, value in enumerate(values):
        if place and value == values[place - 1]:
            lengths[-1] += 1
        else:
            lengths.append(1)
    return lengths


def _note(found: dict[int, None], units: int, lengths: list[int]) -> None:
    """Note a number of parts where runs are equally long."""
    if 1 < len(lengths) < units and len(set(lengths)) == 1 and units % lengths[0] == 0:
        found.setdefault(units // lengths[0])
