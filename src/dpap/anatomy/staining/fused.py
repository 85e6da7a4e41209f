"""Layers of which several rows make one unit: fused projections, as of gated linear units.

A layer may compute gates and values at once, to be cut apart and multiplied (`F.glu`, `chunk`, every second one).
Decoded row by row, what reads the product is fed by two rows, k of one half and k of the other, and both leave
together: they are one unit. Seen so, it is a unit as any other.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from dpap.anatomy.layers import by_unit, called_as, groups_of
from dpap.anatomy.ownership import further_tensors
from dpap.anatomy.staining.codes import MIXED, numbers_of
from dpap.anatomy.staining.decoding import Decoded, Reached, add_decoded, apart
from dpap.anatomy.staining.dye import Dyer, Site
from dpap.anatomy.views import FusedView

ROWS = (2, 3, 4)
"""How many rows a unit may have."""


@dataclass(frozen=True)
class Fused:
    """A layer of which several rows make one unit.

    Attributes:
        view: in the place of the layer.
        joined: sites at which these rows have become one feature.
    """

    view: FusedView
    joined: frozenset[Site]


def find_fused(
    dyer: Dyer, units: dict[str, int], reach: Reached, decoded: Decoded, outputs: Collection[str]
) -> dict[str, Fused]:
    """Find such layers, and decode them by these units; `dyer`, `units` and `decoded` follow.

    Args:
        dyer: the network, ready to run.
        units: source -> number of its units.
        reach: where the dye of each source arrives.
        decoded: what was told of their units, row by row.
        outputs: sources that must keep their width.
    """
    proposed = {
        source: list(_proposed(dyer.layers[source], source, decoded))
        for source in units
        if source not in outputs
    }
    by_rows = {source: decoded.of(source) for source, views in proposed.items() if views}
    found: dict[str, FusedView] = {}
    while trying := {source: proposed[source].pop(0) for source in by_rows if proposed[source]}:
        for source, view in trying.items():
            dyer.layers[source] = view
            units[source] //= view.gates
        for group in apart({source: reach[source] for source in trying}):
            add_decoded(dyer, {source: units[source] for source in group}, reach, decoded)
        for source, view in trying.items():
            if _is_mixed(dyer, source, decoded):
                dyer.layers[source] = view.owner
                units[source] *= view.gates
                for site, along in by_rows[source].items():
                    for axis, fed in along.items():
                        decoded.add(site, axis, source, fed)
            else:
                found[source] = view
                proposed[source].clear()
    _, axes = decoded.feature_axes(dyer)
    return {source: Fused(view, _joined(by_rows[source], axes)) for source, view in found.items()}


def _proposed(layer: nn.Module, source: str, decoded: Decoded) -> Iterator[FusedView]:
    """How rows may be one unit, by the rows that feed one feature of a weight layer together."""
    codes = list(decoded.codes.get(source, {}).values())
    if (
        not any(len(each) for each in codes)
        or called_as(layer) is None
        or groups_of(layer) > 1
        or further_tensors(layer)
    ):
        return
    seen, words = torch.cat(codes).unique(), decoded.words[source]
    for gates, interleaved in product(ROWS, (False, True)):
        if len(words) % gates == 0 and len(words) > gates:
            view = FusedView(layer, gates, interleaved)
            if torch.equal(seen, numbers_of(by_unit(words, view).any(1)).unique()):
                yield view


def _is_mixed(dyer: Dyer, source: str, decoded: Decoded) -> bool:
    """Whether several units of a source feed one feature of a weight layer."""
    return any(
        bool((fed == MIXED).any())
        for site, along in decoded.of(source).items()
        if site.module in dyer.layers
        for fed in along.values()
    )


def _joined(by_rows: Mapping[Site, Mapping[int, Tensor]], axes: Mapping[Site, int]) -> frozenset[Site]:
    """Sites at which several rows of a source feed one feature."""
    return frozenset(
        site
        for site, along in by_rows.items()
        if axes.get(site) in along and bool((along[axes[site]] == MIXED).any())
    )
