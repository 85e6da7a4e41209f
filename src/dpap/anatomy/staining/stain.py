"""Find by staining which unit feeds which feature, whatever lies in between.

As in neuroanatomy: a dye is injected, and where it arrives is recorded. One pass a source finds where its dye arrives
at all; then all are dyed together, unit by unit in a code (`decoding`), so that layers of up to 512 units take 12
passes. A feature that several layers feed is joined: a residual stream, or any other sum or product. Passes with real
activity find what a silent source silences although others feed it (`gates`), and where silent units would still cause
activity.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from dpap.anatomy.around import silent_around
from dpap.anatomy.carried import Carried, change_states, match
from dpap.anatomy.layers import size_of
from dpap.anatomy.pytrees import Inputs, Outputs, float_tensors, map_floats, nan_like
from dpap.anatomy.staining.codes import INPUT, NO_UNIT, Feeds
from dpap.anatomy.staining.decoding import apart, decode_units
from dpap.anatomy.staining.dye import RETURNED, Dyer, Pass, Reach, Site
from dpap.anatomy.staining.fused import Fused, find_fused
from dpap.anatomy.staining.gates import find_gates
from dpap.anatomy.staining.perturb import Known, NumericLook
from dpap.anatomy.staining.unreached import Calls


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
        fused: source layers of which several rows make one unit.
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
    fused: dict[str, Fused]


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
        decoded = decode_units(dyer, units, reach)
        fused = find_fused(dyer, units, reach, decoded, at_output)
        feeds, axis = decoded.feature_axes(dyer)
        dyer.axes.update({site: (along,) for site, along in axis.items()})
        seen = NumericLook(dyer, Known(units, feeds, axis, reach, at_output)).look()
        for site, by_axis in seen.feeds.items():
            for along, fed_by in by_axis.items():
                for source, fed in fed_by.items():
                    decoded.add(site, along, source, fed)
                    reach[source].setdefault(site, {})[along] = fed != NO_UNIT
        feeds, axis = decoded.feature_axes(dyer)
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
        gates = find_gates(dyer, apart({source: reach[source] for source in sources}), within, axis)
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
        fused=fused,
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
