"""A second, numeric look: perturb units and see what moves.

Dye is lost wherever a number is only compared: thresholds, top-k, winner-take-all, conditions, sorting, a branch of
Python. There, values still move. Weight layers emit what they emit on the examples, a pass perturbs some units, and
what moves at a site without one of its known sources among the perturbed shows a path that no dye took. Such paths are
then decoded unit by unit, as dye is; what cannot be decoded is mixed.

A path from a source into a feature shows where the source is perturbed and none of the feature's known sources is, so
few passes do for all of them, each with many sources at once. A few more perturb some units of each source, which shows
where units of one source influence each other's features (a competition).
"""

import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Bool
from torch import Tensor

from dpap.anatomy.layers import called_as
from dpap.anatomy.staining.codes import MIXED, NO_UNIT, Feeds, codewords, decode
from dpap.anatomy.staining.dye import Dyer, Pass, Site, Values
from dpap.anatomy.staining.emissions import Perturbation

CANDIDATES = 24
"""Random sets of sources among which the next pass takes the one that shows the most."""
SHARES = (0.5, 0.5, 0.15)
"""Of the units of every source that are perturbed in a pass."""
DECODED_WITH = (
    Perturbation(sign="up", size=100.0),
    Perturbation(sign="down", size=100.0),
    Perturbation(sign="up", size=1.0),
    Perturbation(sign="down", size=1.0),
    Perturbation(size=0.01),
)
"""Signs and sizes with which a path is decoded: small ones that change no branch, large ones that pass thresholds."""
CHECKS = 3
"""Random halves of the units on which a decoded path must hold."""

Moved = dict[Site, dict[int, Bool[Tensor, "_"]]]
"""Site -> axis, from the end -> which slices along it moved."""
Units = dict[str, Bool[Tensor, "_"]]
"""Source -> which of its units."""


@dataclass
class Seen:
    """What the numeric look saw that dye did not.

    Attributes:
        feeds: site -> axis -> source -> the unit that feeds each feature.
        outputs: sources that move what must keep its width of the network's output.
        deciding: sources that change what runs, or the shape of what runs.
    """

    feeds: dict[Site, dict[int, Feeds]] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)
    deciding: set[str] = field(default_factory=set)


@dataclass
class Known:
    """What staining found so far.

    Attributes:
        units: source -> number of its units.
        feeds: site -> source -> the unit that feeds each feature along the axis of the site.
        axis: site -> axis that counts features.
        reached: source -> sites that its dye reached.
        outputs: sources with dye in the output.
    """

    units: dict[str, int]
    feeds: dict[Site, Feeds]
    axis: dict[Site, int]
    reached: Mapping[str, Collection[Site]]
    outputs: set[str]

    def __post_init__(self) -> None:
        self._at: dict[Site, set[str]] = {}
        for source in self.units:
            for site in self.reached[source]:
                self._at.setdefault(site, set()).add(source)
        # sites along a stream are fed alike, and what explains a pass at one does so at all
        alike: dict[object, int] = {}
        self._alike: dict[Site, int] = {}
        for site, sources in self._at.items():
            fed = self.feeds.get(site, {})
            key = (
                self.axis.get(site),
                tuple(
                    (source, fed[source].numpy().tobytes() if source in fed else None)
                    for source in sorted(sources)
                ),
            )
            self._alike[site] = alike.setdefault(key, len(alike))
        self._explained: dict[tuple[int, int, int], Tensor] = {}
        self._perturbed: Units | None = None

    def sources_at(self, site: Site) -> frozenset[str]:
        return frozenset(self._at.get(site, ()))

    def unexplained(self, site: Site, axis: int, moved: Tensor, units: Units) -> Tensor:
        """What moved along an axis of a site although none of its known units was perturbed, of these `units`, of
        each source at least one.
        """
        if not moved.any() or site not in self._at:
            return moved
        if self._perturbed is not units:
            self._perturbed = units
            self._explained.clear()
        key = (self._alike[site], axis, len(moved))
        if key not in self._explained:
            self._explained[key] = self._explains(site, axis, len(moved), units)
        return moved & ~self._explained[key]

    def _explains(self, site: Site, axis: int, length: int, units: Units) -> Tensor:
        """Where at least one known unit was perturbed."""
        explained = torch.zeros(length, dtype=torch.bool)
        for source in units.keys() & self._at[site]:
            fed = self.feeds.get(site, {}).get(source)
            if fed is None or self.axis.get(site) != axis or len(fed) != length:
                return torch.ones_like(explained)
            explained |= (units[source][fed.clamp(min=0)] & (fed >= 0)) | (fed == MIXED)
        return explained


@dataclass
class _Difference:
    """How a pass differs from one without perturbation."""

    moved: Moved
    output: bool
    decides: bool


class NumericLook:
    """Perturbs units of a network, and tells what moves.

    Args:
        dyer: the network, ready to run.
        known: what staining found.
    """

    def __init__(self, dyer: Dyer, known: Known) -> None:
        self.dyer = dyer
        self.known = known
        self._random = random.Random(0)
        self._generator = torch.Generator().manual_seed(0)
        self._still = self._values(None)
        again = self._values(None)
        # what moves by itself tells nothing
        self._restless = {
            (site, axis)
            for (site, example), by_axis in self._still.values.items()
            for axis, calls in by_axis.items()
            if not _equal(_numbers(calls), _numbers(again.values.get((site, example), {}).get(axis, [])))
        }
        self._output_is_restless = not _equal(self._still.returned, again.returned)

    def look(self) -> Seen:
        """See what dye did not."""
        seen = Seen()
        suspects: set[str] = set()
        for units in self._passes():
            difference = self._difference(Perturbation(units))
            if difference is None or self._surprises(difference, units):
                suspects.update(_perturbed(units))
        found = {source: self._alone(source, seen) for source in self.known.units if source in suspects}
        found = {source: moved for source, moved in found.items() if moved}
        for group in _apart(found):
            self._decode({source: found[source] for source in group}, seen)
        return seen

    def _passes(self) -> Iterator[Units]:
        """Which units to perturb together, pass by pass."""
        known = self.known
        every = frozenset(known.units)
        earlier = self._earlier()
        missing = {frozenset(known.outputs): every - known.outputs}
        for site, before in earlier.items():
            sources = known.sources_at(site)
            missing[sources] = missing.get(sources, frozenset()) | (before - sources)
        for chosen in _showing(list(known.units), missing, self._random):
            yield {source: torch.ones(known.units[source], dtype=torch.bool) for source in chosen}
        for share in SHARES:
            yield {source: self._some(units, share) for source, units in known.units.items()}

    def _earlier(self) -> dict[Site, frozenset[str]]:
        """Site -> sources that may move it: those that ran before it, where every part of the network ran once."""
        dyer = self.dyer
        every = frozenset(self.known.units)
        order = list(dyer.order)
        if len(dyer.examples) > 1:
            return dict.fromkeys(order, every)
        first: dict[str, int] = {}
        for place, site in enumerate(order):
            first.setdefault(site.module, place)
        always = {
            source
            for source in every
            if dyer.calls.get(source, 0) != 1 or called_as(dyer.layers[source]) is None
        }
        return {
            site: every
            if dyer.calls.get(site.module, 0) != 1
            else frozenset(
                source for source in every if source in always or first[source] < first[site.module]
            )
            for site in order
        }

    def _some(self, units: int, share: float = 0.5) -> Tensor:
        return torch.rand(units, generator=self._generator) < share

    def _surprises(self, difference: _Difference, units: Units) -> bool:
        units = _perturbed(units)
        return (
            difference.decides
            or (difference.output and not units.keys() & self.known.outputs)
            or any(
                bool(self.known.unexplained(site, axis, moved, units).any())
                for site, by_axis in difference.moved.items()
                for axis, moved in by_axis.items()
                if axis == self.known.axis.get(site, axis)
            )
        )

    def _alone(self, source: str, seen: Seen) -> Moved:
        """What a source moves, by itself, that it is not known to feed, or not in this way."""
        count = self.known.units[source]
        everything: Moved = {}
        for perturbed in (torch.ones(count, dtype=torch.bool), *(self._some(count) for _ in range(2))):
            units = _perturbed({source: perturbed})
            first = self._difference(Perturbation(units))
            if first is not None and not self._surprises(first, units):
                continue
            for difference in (first, *(self._difference(_of(each, units)) for each in DECODED_WITH)):
                if difference is None or difference.decides:
                    # on another path everything moves
                    seen.deciding.add(source)
                    continue
                if difference.output:
                    seen.outputs.add(source)
                for site, by_axis in difference.moved.items():
                    for axis, moved in by_axis.items():
                        if self.known.unexplained(site, axis, moved, units).any():
                            place = everything.setdefault(site, {})
                            place[axis] = place[axis] | moved if axis in place else moved
        return everything

    def _decode(self, found: dict[str, Moved], seen: Seen) -> None:
        """Find unit by unit which features sources move that never move the same, and check that on random units."""
        words = {source: codewords(self.known.units[source]) for source in found}
        bits = [
            self._moved({source: word[:, bit] for source, word in words.items() if bit < word.shape[1]})
            for bit in range(max(word.shape[1] for word in words.values()))
        ]
        maps: dict[Site, dict[int, Feeds]] = {}
        for source, word in words.items():
            for site, by_axis in found[source].items():
                for axis, moved in by_axis.items():
                    nothing = torch.zeros_like(moved)
                    code = [bit.get(site, {}).get(axis, nothing) for bit in bits[: word.shape[1]]]
                    fed = decode(torch.stack(code, 1), moved, word)
                    unseen = len(torch.unique(fed[fed >= 0])) < len(word) and not bool((fed == MIXED).any())
                    if unseen:
                        # some units moved nothing: what nothing else feeds may be theirs
                        fed = torch.where(self._unfed(site, axis, moved), MIXED, fed)
                    known = self.known.feeds.get(site, {}).get(source)
                    if known is not None and self.known.axis.get(site) == axis:
                        fed = torch.where((known == NO_UNIT) | (known == fed), fed, MIXED)
                    maps.setdefault(site, {}).setdefault(axis, {})[source] = fed
        for _ in range(CHECKS):
            units = {source: self._some(len(word)) for source, word in words.items()}
            moves = self._moved(units)
            for site, along in maps.items():
                for axis, feeds in along.items():
                    for source, fed in feeds.items():
                        moved = moves.get(site, {}).get(axis, torch.zeros_like(fed, dtype=torch.bool))
                        expected = units[source][fed.clamp(min=0)]
                        feeds[source] = torch.where((fed >= 0) & (moved != expected), MIXED, fed)
        for site, along in maps.items():
            for axis, feeds in along.items():
                seen.feeds.setdefault(site, {}).setdefault(axis, {}).update(feeds)

    def _unfed(self, site: Site, axis: int, moved: Tensor) -> Tensor:
        """Slices that have no known source and did not move."""
        unfed = ~moved
        for fed in self.known.feeds.get(site, {}).values() if self.known.axis.get(site, axis) == axis else ():
            unfed &= fed == NO_UNIT
        return unfed

    def _moved(self, units: Units) -> Moved:
        """What moves with some units, by a perturbation of any size."""
        everything: Moved = {}
        for each in DECODED_WITH:
            difference = self._difference(_of(each, units))
            if difference is None or difference.decides:
                continue
            for site, by_axis in difference.moved.items():
                place = everything.setdefault(site, {})
                for axis, moved in by_axis.items():
                    place[axis] = place[axis] | moved if axis in place else moved
        return everything

    def _values(self, perturbation: Perturbation | None) -> Pass:
        return self.dyer.run(Pass(perturbation=perturbation, detect="values"))

    def _difference(self, perturbation: Perturbation) -> _Difference | None:
        """What a perturbation changes; None where the network does not run with it."""
        try:
            now = self._values(perturbation)
        except Exception:
            return None
        moved: Moved = {}
        decides = now.values.keys() != self._still.values.keys()
        for (site, example), by_axis in self._still.values.items():
            for axis, calls in by_axis.items():
                others = now.values.get((site, example), {}).get(axis, [])
                if (site, axis) in self._restless:
                    continue
                if [shape for shape, _ in calls] != [shape for shape, _ in others]:
                    decides = True
                    continue
                if len({len(values) for _, values in calls}) != 1:
                    continue
                each_call = [_differs(one, other) for (_, one), (_, other) in zip(calls, others, strict=True)]
                differs = torch.stack(each_call).any(0)
                place = moved.setdefault(site, {})
                if axis not in place:
                    place[axis] = differs
                elif place[axis].shape == differs.shape:
                    place[axis] = place[axis] | differs
        output = not self._output_is_restless and not _equal(self._still.returned, now.returned)
        return _Difference(moved, output, decides)


def _perturbed(units: Units) -> Units:
    """Sources of which some units are perturbed."""
    return {source: some for source, some in units.items() if some.any()}


def _numbers(calls: list[Values]) -> list[Tensor]:
    return [values for _, values in calls]


def _of(perturbation: Perturbation, units: Units) -> Perturbation:
    return Perturbation(units, perturbation.sign, perturbation.size)


def _differs(one: Tensor, other: Tensor) -> Tensor:
    return (one != other) & ~(torch.isnan(one) & torch.isnan(other))


def _equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(
        first.shape == second.shape and not bool(_differs(first, second).any())
        for first, second in zip(one, other, strict=True)
    )


def _showing(
    sources: list[str], missing: Mapping[frozenset[str], frozenset[str]], draw: random.Random
) -> Iterator[frozenset[str]]:
    """Sets of sources to perturb together, so that every path shows: for every set of known sources, and every source
    that is missing in it and may be one, a set that holds this source and none of the known ones.
    """
    everything = frozenset(sources)
    left = {each: those for each, those in missing.items() if those}
    while left:
        candidates = [everything - each for each in left]
        draw.shuffle(candidates)
        candidates = candidates[:CANDIDATES]
        for _ in range(CANDIDATES):
            share = draw.choice((0.25, 0.5, 0.75))
            candidates.append(frozenset(source for source in sources if draw.random() < share))
        best = max(candidates, key=partial(_shown, left))
        yield best
        left = {
            each: remains
            for each, missing in left.items()
            if (remains := missing if each & best else missing - best)
        }


def _shown(left: Mapping[frozenset[str], frozenset[str]], chosen: frozenset[str]) -> int:
    """How many of the paths that are left show where some sources are perturbed."""
    return sum(len(missing & chosen) for each, missing in left.items() if not each & chosen)


def _apart(found: dict[str, Moved]) -> list[list[str]]:
    """Sources in groups within which no two move the same slice."""
    groups: list[list[str]] = []
    for source, moved in found.items():
        for group in groups:
            if not any(_meet(moved, found[other]) for other in group):
                group.append(source)
                break
        else:
            groups.append([source])
    return groups


def _meet(one: Moved, other: Moved) -> bool:
    return any(
        bool((one[site][axis] & other[site][axis]).any())
        for site in one.keys() & other.keys()
        for axis in one[site].keys() & other[site].keys()
    )
