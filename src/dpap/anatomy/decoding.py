"""Which unit of each source feeds which feature, from passes in which units are dyed in a code.

All sources are dyed at once, unit k of each with the same codeword: where several meet in a feature, as along a
residual stream, the code is still a codeword if the same unit of each arrives there, as it is in a sum. Sources that
meet in other ways (a shuffle on one of the ways) are dyed again in groups that do not meet.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dpap.anatomy.codes import MIXED, NO_UNIT, Feeds, codewords, decode
from dpap.anatomy.dye import Dyer, Pass, Reach, Site
from dpap.anatomy.layers import layer_kind

Reached = Mapping[str, Mapping[Site, Reach]]
"""Source -> site -> where its dye arrives."""


@dataclass
class Decoded:
    """Which units feed which features, along each axis that may count features.

    Attributes:
        along: site -> axis -> source -> the unit that feeds each feature.
    """

    along: dict[Site, dict[int, Feeds]] = field(default_factory=dict)

    def add(self, site: Site, axis: int, source: str, fed: Tensor) -> None:
        """Keep which units of a source feed the features of a site along an axis."""
        self.along.setdefault(site, {}).setdefault(axis, {})[source] = fed

    def feature_axes(self, dyer: Dyer) -> tuple[dict[Site, Feeds], dict[Site, int]]:
        """What feeds the features at each site, and the axis that counts them."""
        axes = {}
        for name, module in dyer.layers.items():
            kind = layer_kind(module)
            if kind is not None:
                axes[Site(name)] = kind.activity_axis
        for site in self.along:
            axis = axes.get(site, self._axis(site))
            if axis is not None:
                axes[site] = axis
        return {site: feeds[axes[site]] for site, feeds in self.along.items() if site in axes}, axes

    def _axis(self, site: Site) -> int | None:
        """The axis along which the most units can be distinguished."""
        distinguished = {axis: self._distinguished(site, axis) for axis in self.along[site]}
        most = max(distinguished.values())
        best = [axis for axis, number in distinguished.items() if number == most]
        return best[0] if most and len(best) == 1 else None

    def _distinguished(self, site: Site, axis: int) -> int:
        """How many units can be distinguished along an axis."""
        feeds = self.along[site][axis].values()
        return sum(len(torch.unique(fed[fed >= 0])) for fed in feeds)


def decode_units(dyer: Dyer, units: Mapping[str, int], reach: Reached) -> Decoded:
    """Dye the units of all sources; which feeds which feature.

    Args:
        dyer: the network, ready to run.
        units: source -> number of its units.
        reach: where the dye of each source arrives.
    """
    decoded = Decoded()
    # what dyes less than its source among the dye of all others does so alone
    suspects = _mixed(dyer, units, reach)
    mixed: set[str] = set()
    for group in apart({source: reach[source] for source in suspects}):
        mixed.update(_mixed(dyer, {source: units[source] for source in group}, reach))
    for source in mixed:
        for site, reached in reach[source].items():
            for along, dyed in reached.items() if site.module in dyer.layers else ():
                decoded.add(site, along, source, torch.where(dyed, MIXED, NO_UNIT))
    distinct = {source: count for source, count in units.items() if source not in mixed}
    _decode(dyer, distinct, reach, decoded)
    entangled = _entangled(dyer, distinct, decoded)
    for group in apart({source: reach[source] for source in entangled}):
        _decode(dyer, {source: units[source] for source in group}, reach, decoded)
    return decoded


def apart(reach: Reached) -> list[list[str]]:
    """Sources in groups within which dyes never meet, so that one set of passes serves a whole group."""
    groups: list[list[str]] = []
    for source in reach:
        for group in groups:
            if not any(_meet(reach[source], reach[other]) for other in group):
                group.append(source)
                break
        else:
            groups.append([source])
    return groups


def _meet(one: Mapping[Site, Reach], other: Mapping[Site, Reach]) -> bool:
    """Whether the dyes of two sources may share a feature at some site."""
    for site in one.keys() & other.keys():
        first, second = one[site], other[site]
        if all(bool((first[axis] & second[axis]).any()) for axis in first.keys() & second.keys()):
            return True
    return False


def _mixed(dyer: Dyer, units: Mapping[str, int], reach: Reached) -> list[str]:
    """Sources of which a single unit dyes all that the whole source does, at weight layers and neurons: no code can
    distinguish such units (norms over channels, attention).
    """
    first = {source: torch.arange(count) == 0 for source, count in units.items()}
    found = dyer.run(Pass(dye=first)).found
    mixed = []
    for source, count in units.items():
        alike = [
            bool((found.get(site, {}).get(axis, ~dyed) >= dyed).all())
            for site, reached in reach[source].items()
            if dyer.distinguishes(site)
            for axis, dyed in reached.items()
        ]
        if count > 1 and alike and all(alike):
            mixed.append(source)
    return mixed


def _decode(dyer: Dyer, units: Mapping[str, int], reach: Reached, decoded: Decoded) -> None:
    """Dye unit k of every source by one codeword; add to `decoded` which unit feeds which feature."""
    if not units:
        return
    words = codewords(max(units.values()))
    passes = [
        dyer.run(Pass(dye={source: words[:count, bit] for source, count in units.items()})).found
        for bit in range(words.shape[1])
    ]
    for source, count in units.items():
        for site, reached in reach[source].items():
            for axis, dyed in reached.items():
                nothing = torch.zeros_like(dyed)
                code = torch.stack([found.get(site, {}).get(axis, nothing) for found in passes], 1)
                decoded.add(site, axis, source, decode(code, dyed, words[:count]))


def _entangled(dyer: Dyer, sources: Collection[str], decoded: Decoded) -> list[str]:
    """Sources that share a feature with another in which no single unit of theirs could be told."""
    _, axes = decoded.feature_axes(dyer)
    entangled: set[str] = set()
    for site, along in decoded.along.items():
        for feeds in [along[axes[site]]] if site in axes and axes[site] in along else along.values():
            fed_by = {source: fed for source, fed in feeds.items() if source in sources}
            if len(fed_by) < 2 or fed_by.keys() <= entangled:
                continue
            shared = sum((fed != NO_UNIT).int() for fed in fed_by.values()) > 1
            entangled |= {source for source, fed in fed_by.items() if bool((shared & (fed == MIXED)).any())}
    return [source for source in sources if source in entangled]
