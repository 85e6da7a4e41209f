"""Which unit of each source feeds which feature, from passes in which units are dyed in a code.

All sources are dyed at once, unit k of each with the same codeword: where several meet in a feature, as along a
residual stream, the code is still a codeword if the same unit of each arrives there, as it is in a sum. Sources that
meet in other ways (a shuffle on one of the ways) are dyed again in groups that do not meet.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from dpap.anatomy.layers import layer_kind
from dpap.anatomy.staining.codes import MIXED, NO_UNIT, Feeds, codewords, decode, numbers_of
from dpap.anatomy.staining.dye import Dyer, Pass, Reach, Site

Reached = Mapping[str, Mapping[Site, Reach]]
"""Source -> site -> where its dye arrives."""


@dataclass
class Decoded:
    """Which units feed which features, along each axis that may count features.

    Attributes:
        along: site -> axis -> source -> the unit that feeds each feature.
        codes: source -> weight layer -> what was seen, as numbers, where several of its units feed a feature.
        words: source -> the codewords of its units.
    """

    along: dict[Site, dict[int, Feeds]] = field(default_factory=dict)
    codes: dict[str, dict[Site, Int64[Tensor, "_"]]] = field(default_factory=dict)
    words: dict[str, Bool[Tensor, "unit bit"]] = field(default_factory=dict)

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

    def in_order(self, dyer: Dyer, sources: Collection[str]) -> "Decoded":
        """The same, with sites and sources in the order in which the network runs them."""
        sites = [site for site in dyer.order if site in self.along]
        sites += [site for site in self.along if site not in dyer.order]
        return Decoded(
            {
                site: {
                    axis: {source: feeds[source] for source in sources if source in feeds}
                    for axis, feeds in self.along[site].items()
                }
                for site in sites
            },
            self.codes,
            self.words,
        )

    def of(self, source: str) -> dict[Site, dict[int, Tensor]]:
        """Site -> axis -> what a source feeds."""
        found = {
            site: {axis: feeds[source] for axis, feeds in along.items() if source in feeds}
            for site, along in self.along.items()
        }
        return {site: along for site, along in found.items() if along}

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
    add_decoded(dyer, distinct, reach, decoded)
    # where a source is mixed by itself, a single pass shows it, and no code would show more
    blurred: dict[str, set[Site]] = {source: set() for source in distinct}
    for group in apart({source: reach[source] for source in _entangled(dyer, blurred, decoded)}):
        found = _first_units(dyer, {source: units[source] for source in group})
        for source in group:
            blurred[source] = {
                site
                for site, reached in reach[source].items()
                if units[source] > 1 and _covers(found, site, reached)
            }
    for group in apart({source: reach[source] for source in _entangled(dyer, blurred, decoded)}):
        add_decoded(dyer, {source: units[source] for source in group}, reach, decoded)
    return decoded.in_order(dyer, units)


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
    found = _first_units(dyer, units)
    mixed = []
    for source, count in units.items():
        alike = [
            _covers(found, site, reached)
            for site, reached in reach[source].items()
            if dyer.distinguishes(site)
        ]
        if count > 1 and alike and all(alike):
            mixed.append(source)
    return mixed


def _first_units(dyer: Dyer, units: Mapping[str, int]) -> Mapping[Site, Reach]:
    """Where the dye of the first units of sources arrives."""
    return dyer.run(Pass(dye={source: torch.arange(count) == 0 for source, count in units.items()})).found


def _covers(found: Mapping[Site, Reach], site: Site, reached: Reach) -> bool:
    """Whether all was found at a site that a source reaches there."""
    here = found.get(site, {})
    return all(axis in here and _holds(here[axis], dyed) for axis, dyed in reached.items())


def _holds(found: Tensor, dyed: Tensor) -> bool:
    """Whether all was found that is dyed; not where another path of the network gave another length."""
    return found.shape == dyed.shape and bool((found >= dyed).all())


def add_decoded(dyer: Dyer, units: Mapping[str, int], reach: Reached, decoded: Decoded) -> None:
    """Dye unit k of every source by one codeword; add to `decoded` which unit feeds which feature."""
    if not units:
        return
    words = codewords(max(units.values()))
    passes = [
        dyer.run(Pass(dye={source: words[:count, bit] for source, count in units.items()})).found
        for bit in range(words.shape[1])
    ]
    for source, count in units.items():
        decoded.codes[source], decoded.words[source] = {}, words[:count]
        for site, reached in reach[source].items():
            for axis, dyed in reached.items():
                nothing = torch.zeros_like(dyed)
                code = torch.stack([found.get(site, {}).get(axis, nothing) for found in passes], 1)
                fed = decode(code, dyed, words[:count])
                decoded.add(site, axis, source, fed)
                if site.module in dyer.layers:
                    decoded.codes[source][site] = numbers_of(code[fed == MIXED])


def _entangled(dyer: Dyer, blurred: Mapping[str, Collection[Site]], decoded: Decoded) -> list[str]:
    """Sources that share a feature with another in which no single unit of theirs could be told.

    Args:
        dyer: the network.
        blurred: source -> sites at which it is mixed by itself.
        decoded: what was told of them.
    """
    _, axes = decoded.feature_axes(dyer)
    entangled: set[str] = set()
    for site, along in decoded.along.items():
        for feeds in [along[axes[site]]] if site in axes and axes[site] in along else along.values():
            fed_by = {source: fed for source, fed in feeds.items() if source in blurred}
            left = [source for source in fed_by if source not in entangled and site not in blurred[source]]
            if len(fed_by) < 2 or not left:
                continue
            shared = sum((fed != NO_UNIT).int() for fed in fed_by.values()) > 1
            entangled |= {source for source in left if bool((shared & (fed_by[source] == MIXED)).any())}
    return [source for source in blurred if source in entangled]
