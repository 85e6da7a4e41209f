"""Gates: features that fall silent with one of their sources although others feed them (a product)."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool
from torch import Tensor

from dpap.anatomy.staining.codes import NO_UNIT, Feeds, codewords
from dpap.anatomy.staining.dye import Dyer, Pass, Site

PROBES = 32
"""Activities of random sign that must all be zero before a source counts as a gate: wrong once in 2^32."""

Features = dict[Site, Bool[Tensor, "_"]]
"""Site -> which of its features."""


@dataclass
class _Joint:
    """Features that several sources feed.

    Attributes:
        shared: site -> which of its features several sources feed.
        of: source -> site -> which of these it feeds.
    """

    shared: Features = field(default_factory=dict)
    of: dict[str, Features] = field(default_factory=dict)

    @classmethod
    def found(cls, feeds: Mapping[Site, Feeds]) -> "_Joint":
        joint = cls()
        for site, fed_by in feeds.items():
            shared = sum((fed != NO_UNIT).int() for fed in fed_by.values()) > 1
            if not isinstance(shared, Tensor) or not shared.any():
                continue
            joint.shared[site] = shared
            for source, fed in fed_by.items():
                where = shared & (fed >= 0)
                if where.any():
                    joint.of.setdefault(source, {})[site] = where
        return joint


def find_gates(
    dyer: Dyer, groups: Collection[Collection[str]], feeds: Mapping[Site, Feeds], axis: Mapping[Site, int]
) -> dict[Site, dict[str, Bool[Tensor, "_"]]]:
    """Which joint features fall silent with one of their sources.

    Args:
        dyer: the network, ready to run.
        groups: sources in groups within which none meets another.
        feeds: site -> source -> the unit that feeds each feature.
        axis: site -> axis of its activity that counts features, from the end.

    Returns:
        Site -> source -> features that are silent whenever the source's unit is.
    """
    joint = _Joint.found(feeds)
    if not joint.shared:
        return {}
    fewest = min(math.prod(dyer.shapes[site]) for site in joint.shared)
    passes = -(-PROBES // max(fewest, 1))
    sites = frozenset(joint.shared)

    def active(silent: Collection[str]) -> Features:
        """Features that are active while some sources are silent."""
        found: Features = {}
        for seed in range(passes):
            now = Pass(
                emit="noise",
                silent=frozenset(silent),
                detect="activity",
                stateful="identity",
                seed=seed,
                sites=sites,
            )
            recorded = dyer.run(now).found
            for site, shared in joint.shared.items():
                active = recorded.get(site, {}).get(axis[site], torch.zeros_like(shared))
                found[site] = found[site] | active if site in found else active
        return found

    # a gate acts wherever the two meet: all the features that a source shares at a site must fall silent
    with_all = active(())
    left = {
        source: {
            site for site, where in joint.of.get(source, {}).items() if bool((with_all[site] & where).any())
        }
        for group in groups
        for source in group
    }

    def rule_out(silent: Collection[str]) -> None:
        """What stays active with them is no gate of theirs."""
        found = active(silent)
        for source in silent:
            left[source] -= {
                site for site in left[source] if bool((found[site] & joint.of[source][site]).any())
            }

    sets = [members for group in groups if (members := [source for source in group if left[source]])]
    words = codewords(max(len(sets), 1))
    if words.shape[1] < len(sets):
        # of any two sets there is a pass in which one is silent and the other is not: a sum stays active in it
        for bit in range(words.shape[1]):
            rule_out(
                [each for members, word in zip(sets, words, strict=True) if word[bit] for each in members]
            )
    for members in sets:
        silent = [source for source in members if left[source]]
        if silent:
            rule_out(silent)
    gates: dict[Site, dict[str, Tensor]] = {}
    for source, sites_left in left.items():
        for site in sites_left:
            gates.setdefault(site, {})[source] = joint.of[source][site]
    return gates
