"""Find by staining which unit feeds which feature, whatever lies in between.

As in neuroanatomy: a dye is injected, and where it arrives is recorded. One pass a source finds where its dye arrives
at all; then sources that never meet are dyed together, unit by unit in a code (`codes`), so that a layer of 512 units
takes 12 passes. A feature that several layers feed is joined: a residual stream, or any other sum or product. Passes
with real activity find what a silent source silences although others feed it (a gate), and where silent units would
still cause activity.
"""

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from dpap.anatomy.around import silent_around
from dpap.anatomy.carried import Carried, change_states, match
from dpap.anatomy.codes import INPUT, MIXED, NO_UNIT, Feeds, codewords, decode
from dpap.anatomy.dye import RETURNED, Dyer, Pass, Reach, Site
from dpap.anatomy.layers import layer_kind, size_of
from dpap.anatomy.perturb import Known, NumericLook
from dpap.anatomy.pytrees import Inputs, Outputs, float_tensors, map_floats, nan_like
from dpap.anatomy.unreached import Calls

PROBES = 32
"""Activities of random sign that must all be zero before a source counts as a gate: wrong once in 2^32."""


@dataclass
class Stained:
    """What staining found.

    Attributes:
        feeds: site -> source layer -> the source's unit that feeds each feature (`NO_UNIT`, or `MIXED`
            where several units of that source arrive in one feature).
        gates: site -> source layer -> features that are silent whenever the source's unit is, whatever else feeds
            them (a product).
        axis: site -> axis of its activity that counts features, from the end.
        reached: source layer -> sites that its dye reached at all, mapped or not.
        outputs: source layers with dye that reached what must keep its width of the network's output.
        nonzero: weight layer -> features that are not zero although every weight layer emits zero.
        order: sites in the order of their calls.
        shapes: neuron or other site -> shape of its activity on the example input.
        calls: module -> how often it is called in one forward pass.
        positions: weight layer -> how often its weights are used in one forward pass.
        mixing: modules with values of their own that mix features.
        training_paths: whether the network runs weight layers in training that it does not run in evaluation.
        deciding: source layers whose units decide together what runs, or the shapes of what runs.
        carried: arguments of the network that are states, which it returns.
        unreached: weight layers that never ran on the examples, though code of the network names them.
        unused: weight layers that no code of the network names.
        held: source layer -> a module that never ran on the examples and might read its units.
    """

    feeds: dict[Site, Feeds]
    gates: dict[Site, dict[str, Bool[Tensor, "_"]]]
    axis: dict[Site, int]
    reached: dict[str, set[Site]]
    outputs: set[str]
    nonzero: dict[str, Bool[Tensor, "_"]]
    order: list[Site]
    shapes: dict[Site, tuple[int, ...]]
    calls: dict[str, int]
    positions: dict[str, int]
    mixing: set[str]
    training_paths: bool
    deciding: set[str]
    carried: list[Carried]
    unreached: list[str]
    unused: list[str]
    held: dict[str, str]


@dataclass
class _Decoded:
    """Which units feed which features, along each axis that may count features."""

    along: dict[Site, dict[int, Feeds]] = field(default_factory=dict)

    def add(self, site: Site, axis: int, source: str, fed: Tensor) -> None:
        self.along.setdefault(site, {}).setdefault(axis, {})[source] = fed

    def distinguished(self, site: Site, axis: int) -> int:
        """How many units can be distinguished along an axis."""
        feeds = self.along[site][axis].values()
        return sum(len(torch.unique(fed[fed >= 0])) for fed in feeds)

    def axis(self, site: Site) -> int | None:
        """The axis along which the most units can be distinguished."""
        distinguished = {axis: self.distinguished(site, axis) for axis in self.along[site]}
        most = max(distinguished.values())
        best = [axis for axis, number in distinguished.items() if number == most]
        return best[0] if most and len(best) == 1 else None


def stain(model: nn.Module, example_inputs: Inputs, outputs: Outputs | None = None) -> Stained:
    """Stain a network and read off its wiring.

    The network is run without gradients, once for every weight layer and once for every bit of the codes; its
    weights, buffers, hidden states and modes are as before afterwards.

    Args:
        model: any network that runs forward.
        example_inputs: what its forward takes: a tuple of positional or a dictionary of keyword arguments, or a list
            of several such examples, over which the wiring is joined.
        outputs: gives the tensors that must keep their width, of what its forward returns; all must if None.

    Raises:
        ValueError: where the network makes NaN by itself, which no dye can be distinguished from.
    """
    dyer = Dyer(model, example_inputs, outputs)
    training_paths = _has_training_paths(dyer)
    with dyer.ready(training_paths=training_paths):
        calls = Calls(model)
        with calls.observed():
            dyer.observe()
        clean = dyer.run(Pass())
        where = _dyed(clean)
        if where or clean.at_output:
            # transparent neurons may pass on what no spike could be, such as a negative rate
            dyer.emit_ones()
            clean = dyer.run(Pass())
            where = _dyed(clean)
        if where or clean.at_output:
            raise ValueError(
                f"the network makes NaN where no dye is, seen at {', '.join(where) or 'the output'}: give example "
                "inputs without NaN, and check for divisions by zero"
            )
        if dyer.empty and all(0 in shape for shape in dyer.shapes.values()):
            raise ValueError(
                "the example inputs hold no sample, so nothing can be seen: give a batch of at least one"
            )
        sources = [site.module for site in dyer.order if site.module in dyer.layers]
        units = {source: size_of(dyer.layers[source])[0] for source in sources}
        half = {source: torch.arange(count) % 2 == 0 for source, count in units.items()}
        dyer.run(Pass(dye=half, narrow=True))
        reach, at_output, at_hand, carried = _reach(dyer, units, calls)
        groups = _groups({source: reach[source] for source in sources})
        decoded = _Decoded()
        for group in groups:
            mixed = _mixed(dyer, {source: units[source] for source in group}, reach)
            for source in mixed:
                for site, reached in reach[source].items():
                    for along, dyed in reached.items() if site.module in dyer.layers else ():
                        decoded.add(site, along, source, torch.where(dyed, MIXED, NO_UNIT))
            distinct = {source: units[source] for source in group if source not in mixed}
            if distinct:
                _decode(dyer, distinct, reach, decoded)
        feeds, axis = _feature_axes(dyer, decoded)
        dyer.axes.update({site: (along,) for site, along in axis.items()})
        seen = NumericLook(dyer, Known(units, feeds, axis, reach, at_output)).look()
        for site, by_axis in seen.feeds.items():
            for along, fed_by in by_axis.items():
                for source, fed in fed_by.items():
                    decoded.add(site, along, source, fed)
                    reach[source].setdefault(site, {})[along] = fed != NO_UNIT
        feeds, axis = _feature_axes(dyer, decoded)
        at_output |= seen.outputs
        # what is returned and not handed back is of any width
        states = {Site(RETURNED, state.returned) for state in carried}
        for site in [site for site in feeds if site.module == RETURNED and site not in states]:
            del feeds[site]
        for site, reached in reach[INPUT].items():
            if site in axis and axis[site] in reached:
                fed = torch.where(reached[axis[site]], 0, NO_UNIT)
                feeds.setdefault(site, {})[INPUT] = fed
        # a silent unit's state is silent too
        at_rest = change_states(dyer.examples, {state.argument: torch.zeros_like for state in carried})
        with silent_around(model, units):
            silent = dyer.run(Pass(emit="zeros", detect="activity", stateful="zero"), inputs=at_rest)
        within = {site: fed for site, fed in feeds.items() if site.module != RETURNED}
        gates = _gates(dyer, groups, within, axis)
    return Stained(
        feeds=feeds,
        gates=gates,
        axis=axis,
        reached={
            source: {site for site in sites if site.module != RETURNED or site in states}
            for source, sites in reach.items()
        },
        outputs=at_output,
        nonzero={
            site.module: found[axis[site]]
            for site, found in silent.found.items()
            if site.module in dyer.layers
        },
        order=list(dyer.order),
        shapes=dyer.shapes,
        calls=dyer.calls,
        positions=clean.positions,
        mixing=dyer.mixing,
        training_paths=training_paths,
        deciding=seen.deciding,
        carried=carried,
        unreached=[name for name in dyer.layers if name in calls.unreached],
        unused=[name for name in dyer.layers if name in calls.unused],
        held=calls.held(at_hand, units, example_inputs),
    )


def _dyed(clean: Pass) -> list[str]:
    return sorted({site.module for site, reach in clean.found.items() if _any(reach)})


def _any(reach: Reach) -> bool:
    return any(bool(profile.any()) for profile in reach.values())


def _has_training_paths(dyer: Dyer) -> bool:
    """Whether training runs all that evaluation runs, and more weight layers (auxiliary heads)."""
    ran: list[set[str]] = []
    for training_paths in (False, True):
        try:
            with dyer.ready(training_paths=training_paths):
                dyer.observe()
        except Exception:
            # the passes themselves report what evaluation cannot run; training may need targets, for example
            if training_paths:
                return False
        ran.append({site.module for site in dyer.order if site.module in dyer.layers})
    return ran[0] < ran[1]


def _reach(
    dyer: Dyer, units: dict[str, int], calls: Calls
) -> tuple[dict[str, dict[Site, Reach]], set[str], dict[str, set[str]], list[Carried]]:
    """Where the dye of each source, and of the network's input, arrives; which of them reach the output; in the
    forwards of which modules, around those that never ran, the dye of each source is at hand; and the states among
    the arguments.
    """
    reach: dict[str, dict[Site, Reach]] = {}
    outputs = set()
    at_hand: dict[str, set[str]] = {}
    for source, count in units.items():
        with calls.at_hand() as at_hand[source]:
            now = dyer.run(Pass(dye={source: torch.ones(count, dtype=torch.bool)}))
        reach[source] = {site: found for site, found in now.found.items() if _any(found)}
        if now.at_output:
            outputs.add(source)
    carried = _carried(dyer, reach)
    # states are of the network's making
    as_given = {state.argument: torch.nan_to_num for state in carried}
    dyed = map_floats(dyer.examples, nan_like)
    now = dyer.run(Pass(), inputs=change_states(dyed, as_given))
    reach[INPUT] = {site: found for site, found in now.found.items() if _any(found)}
    if now.at_output:
        outputs.add(INPUT)
    return reach, outputs, at_hand, carried


def _carried(dyer: Dyer, reach: dict[str, dict[Site, Reach]]) -> list[Carried]:
    """States among the arguments of the network."""
    returned = {site.call: shape for site, shape in dyer.shapes.items() if site.module == RETURNED}

    def reached_from(number: int) -> set[Site]:
        dye = {number: lambda tensor: torch.full_like(tensor, torch.nan)}
        found = dyer.run(Pass(), inputs=change_states(dyer.examples, dye)).found
        return {site for site, profiles in found.items() if site.module != RETURNED and _any(profiles)}

    def reached_with(place: int) -> set[Site]:
        sources = [sites for sites in reach.values() if Site(RETURNED, place) in sites]
        return {site for sites in sources for site in sites}

    return match(list(float_tensors(dyer.examples[0])), returned, reached_from, reached_with)


def _meet(one: dict[Site, Reach], other: dict[Site, Reach]) -> bool:
    """Whether the dyes of two sources may share a feature at some site."""
    for site in one.keys() & other.keys():
        first, second = one[site], other[site]
        if all(bool((first[axis] & second[axis]).any()) for axis in first.keys() & second.keys()):
            return True
    return False


def _groups(reach: dict[str, dict[Site, Reach]]) -> list[list[str]]:
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


def _mixed(dyer: Dyer, units: dict[str, int], reach: dict[str, dict[Site, Reach]]) -> set[str]:
    """Sources of which a single unit dyes all that the whole source does, at weight layers and neurons: no code can
    distinguish such units (norms over channels, attention).
    """
    first = {source: torch.arange(count) == 0 for source, count in units.items()}
    found = dyer.run(Pass(dye=first)).found
    mixed = set()
    for source, count in units.items():
        alike = [
            torch.equal(found.get(site, {}).get(axis, ~dyed), dyed)
            for site, reached in reach[source].items()
            if dyer.distinguishes(site)
            for axis, dyed in reached.items()
        ]
        if count > 1 and alike and all(alike):
            mixed.add(source)
    return mixed


def _decode(
    dyer: Dyer, units: dict[str, int], reach: dict[str, dict[Site, Reach]], decoded: _Decoded
) -> None:
    """Dye the units of a group of sources by their codes; add to `decoded` which unit feeds which feature."""
    words = {source: codewords(count) for source, count in units.items()}
    passes = []
    for bit in range(max(word.shape[1] for word in words.values())):
        dye = {source: word[:, bit] for source, word in words.items() if bit < word.shape[1]}
        passes.append(dyer.run(Pass(dye=dye)).found)
    for source, word in words.items():
        for site, reached in reach[source].items():
            for axis, dyed in reached.items():
                nothing = torch.zeros_like(dyed)
                bits = [found.get(site, {}).get(axis, nothing) for found in passes[: word.shape[1]]]
                code = torch.stack(bits, 1)
                decoded.add(site, axis, source, decode(code, dyed, units[source]))


def _feature_axes(dyer: Dyer, decoded: _Decoded) -> tuple[dict[Site, Feeds], dict[Site, int]]:
    """What feeds the features at each site, and the axis that counts them."""
    axes = {}
    for name, module in dyer.layers.items():
        kind = layer_kind(module)
        if kind is not None:
            axes[Site(name)] = kind.activity_axis
    for site in decoded.along:
        axis = axes.get(site, decoded.axis(site))
        if axis is not None:
            axes[site] = axis
    return {site: feeds[axes[site]] for site, feeds in decoded.along.items() if site in axes}, axes


def _gates(
    dyer: Dyer, groups: list[list[str]], feeds: dict[Site, Feeds], axis: dict[Site, int]
) -> dict[Site, dict[str, Tensor]]:
    """Which joined features fall silent with one of their sources, although others feed them."""
    joint = {}
    for site, fed in feeds.items():
        shared = sum((unit != NO_UNIT).int() for unit in fed.values()) > 1
        if isinstance(shared, Tensor) and shared.any():
            joint[site] = shared
    if not joint:
        return {}
    # a gate acts wherever the two meet: all the features that a source shares at a site must fall silent
    sites = frozenset(joint)
    fewest = min(math.prod(dyer.shapes[site]) for site in joint)
    passes = -(-PROBES // max(fewest, 1))

    def active(silent: frozenset[str]) -> dict[Site, Tensor]:
        found: dict[Site, Tensor] = {}
        for seed in range(passes):
            now = Pass(
                emit="noise", silent=silent, detect="activity", stateful="identity", seed=seed, sites=sites
            )
            recorded = dyer.run(now).found
            for site, shared in joint.items():
                active = recorded.get(site, {}).get(axis[site], torch.zeros_like(shared))
                found[site] = found[site] | active if site in found else active
        return found

    active_with_all = active(frozenset())
    gates: dict[Site, dict[str, Tensor]] = {}
    for group in groups:
        places = {
            source: {
                site: shared & (feeds[site][source] >= 0)
                for site, shared in joint.items()
                if source in feeds[site]
            }
            for source in group
        }
        members = frozenset(
            source for source, where in places.items() if any(at.any() for at in where.values())
        )
        if not members:
            continue
        left = active(members)
        for source in members:
            for site, where in places[source].items():
                if where.any() and bool(active_with_all[site][where].any()) and not left[site][where].any():
                    gates.setdefault(site, {})[source] = where
    return gates
