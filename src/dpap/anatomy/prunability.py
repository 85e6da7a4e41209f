"""Find the wiring of a network from what staining found, and the prunability of every layer."""

from contextlib import suppress

import torch
from torch import nn

from dpap.anatomy.at_rest import states_at_rest
from dpap.anatomy.attachments import attachments_of
from dpap.anatomy.layers import (
    is_depthwise,
    known_kind,
    layer_kind,
    matrices_of,
    owner_of,
    size_of,
)
from dpap.anatomy.neurons import neuron_kind
from dpap.anatomy.ownership import (
    Further,
    Replay,
    acts_where_zero,
    further_tensors,
    replayed,
    study_further,
    tensor_of,
)
from dpap.anatomy.pytrees import Inputs, Outputs, precision_of
from dpap.anatomy.recurrent import reads_state, with_parts
from dpap.anatomy.staining.codes import INPUT, MIXED, NO_UNIT, Feeds
from dpap.anatomy.staining.dye import RETURNED, Site
from dpap.anatomy.staining.stain import Stained, stain
from dpap.anatomy.usage import output_widths, unused_layers
from dpap.anatomy.views import JointView, MatrixView
from dpap.anatomy.wiring import (
    Attachment,
    NeuronSite,
    Prunability,
    State,
    WeightLayer,
    Wiring,
    named_with_class,
    weights_in,
)

FURTHER_EXAMPLE = (
    "give a further example that takes its branch (example_inputs=[first, second]), or delete it"
)
"""What to do about a layer that never ran."""


def find_wiring(model: nn.Module, example_inputs: Inputs, outputs: Outputs | None = None) -> Wiring:
    """Find the wiring of a network by staining it.

    Args:
        model: any network that runs forward.
        example_inputs: what its forward takes: a tuple of positional or a dictionary of keyword arguments, or a list
            of several such examples, where no single one takes every branch of the network.
        outputs: a function of what its forward returns that gives the tensors which must keep their width; all
            must if None.

    Raises:
        ValueError: where no weight layer runs, or where the network makes NaN by itself.
        TypeError: where `outputs` does not take what the forward returns.

    Example:
        >>> import torch, dpap
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
        >>> wiring = dpap.find_wiring(model, (torch.rand(4, 8),))
        >>> {name: layer.prunability for name, layer in wiring.layers.items()}
        {'0': 'prunable', '2': 'whole'}
        >>> wiring.layers["2"].reason
        "its units are the network's output"
    """
    stained = stain(model, example_inputs, outputs)
    modules = with_parts(model)
    layers = _weight_layers(modules | {name: fused.view for name, fused in stained.fused.items()}, stained)
    if not layers:
        raise ValueError(
            "no weight layer (Linear, convolution, or registered) ran on the example inputs; give the inputs that "
            "training gives, and a network of torch.nn modules, or make the classes of its weight layers known by "
            f"dpap.register_layer; its weights are in: {named_with_class(_others(modules, {}, {})) or 'no module'}"
        )
    neurons = _neurons(modules, stained)
    stepped = any(
        neuron.spikes and neuron.time_axis is None and stained.calls[site.module] == 1
        for site, neuron in neurons.items()
    )
    attachments = attachments_of(model, example_inputs, stained)
    wiring = Wiring(
        layers,
        neurons,
        attachments,
        stained.training_paths,
        stepped,
        outputs=outputs,
        states=_states(stained),
        precision=precision_of(model),
    )
    wiring.rest, wiring.carries = states_at_rest(model, example_inputs, stained.training_paths)
    shared = _shared_parameters(modules)
    read = {source for layer in layers.values() for source in layer.feeds}
    called = {name for name, layer in layers.items() if layer.called is not None}
    unused = unused_layers(model, example_inputs, called - read - stained.outputs, stained.training_paths)
    widths = output_widths(model, example_inputs, stained.training_paths)
    for layer in layers.values():
        layer.neuron = _activity_site(layer, wiring, stained)
        layer.unused = layer.name in unused
        layer.prunability, layer.reason = _prunability(layer, wiring, stained, shared, widths)
        # where several weights lie between a unit and a feature, as in Bilinear, none is a synapse of its own
        layer.synapses = layer.kind.name == "fc" and layer.taps == 1 and layer.can_die
        layer.fixed = _computed(layer) or layer.name in shared
    _study_further(model, example_inputs, wiring)
    _study_synapses(model, example_inputs, wiring)
    wiring.others = _others(modules, layers, attachments)
    propagate_unremovable(wiring)
    return wiring


def _study_further(model: nn.Module, example_inputs: Inputs, wiring: Wiring) -> None:
    """Find what parameters and buffers besides weight and bias do in weight layers that have such."""
    axes = {
        name: layer.kind.activity_axis
        for name, layer in wiring.layers.items()
        if layer.called is not None and not _computed(layer) and further_tensors(layer.module)
    }
    studied: dict[str, Further | Exception] = {}

    def use(name: str, replay: Replay) -> None:
        try:
            studied[name] = study_further(replay)
        except Exception as error:
            studied[name] = error

    replayed(model, example_inputs, axes, use, wiring.training_paths)
    for name in axes:
        layer, found = wiring.layers[name], studied.get(name)
        names = ", ".join(further_tensors(layer.module))
        if isinstance(found, Further):
            layer.further = found.belonging
            layer.synapses &= not found.connecting
            if found.silenced or not layer.can_die:
                continue
            reason = f"a silent unit would still emit something that {names} add to weight and bias"
        else:
            why = "its forward is called by no hook" if found is None else f"{type(found).__name__}: {found}"
            reason = f"it does not run by itself on noise, so what its {names} do to its units is not known ({why})"
        if layer.can_die:
            layer.prunability, layer.reason, layer.synapses = "whole", reason, False


def _study_synapses(model: nn.Module, example_inputs: Inputs, wiring: Wiring) -> None:
    """Let no single synapse die where the forward of a class of its own gives those of zero weight another one."""
    axes = {
        name: layer.kind.activity_axis
        for name, layer in wiring.layers.items()
        if layer.synapses and layer.called is not None and _has_own_forward(layer.called)
    }
    silent: set[str] = set()

    def use(name: str, replay: Replay) -> None:
        # where it does not run on noise it is not known what its synapses do
        with suppress(Exception):
            if not acts_where_zero(replay):
                silent.add(name)

    replayed(model, example_inputs, axes, use, wiring.training_paths)
    for name in axes:
        wiring.layers[name].synapses = name in silent


def _has_own_forward(module: nn.Module) -> bool:
    """Whether a module computes otherwise than the classes of torch."""
    return "forward" in vars(module) or not type(module).forward.__module__.startswith("torch.nn.modules.")


def _weight_layers(modules: dict[str, nn.Module], stained: Stained) -> dict[str, WeightLayer]:
    layers = {}
    for site in stained.order:
        module = modules[site.module]
        kind = layer_kind(module)
        if kind is None or is_depthwise(module):
            continue
        units, features = size_of(module)
        layers[site.module] = WeightLayer(
            site.module,
            features,
            stained.feeds.get(site, {}),
            stained.gates.get(site, {}),
            module,
            kind,
            units,
            stained.positions.get(site.module, 0),
        )
    for name in (*stained.unreached, *stained.unused):
        units, features = size_of(modules[name])
        layers[name] = WeightLayer(name, features, {}, {}, modules[name], known_kind(modules[name]), units)
    return layers


def _neurons(modules: dict[str, nn.Module], stained: Stained) -> dict[Site, NeuronSite]:
    neurons = {}
    for site in stained.order:
        kind = neuron_kind(modules[site.module])
        if kind is None or site not in stained.axis or site not in stained.feeds:
            continue
        feeds = stained.feeds[site]
        features = len(next(iter(feeds.values())))
        time_axis = kind.time_axis_of(modules[site.module])
        neurons[site] = NeuronSite(
            site.module,
            features,
            feeds,
            stained.gates.get(site, {}),
            site,
            stained.axis[site],
            kind.spikes,
            time_axis,
            1 if time_axis is None else stained.shapes[site][time_axis],
        )
    return neurons


def _states(stained: Stained) -> list[State]:
    states = []
    for carried in stained.carried:
        site = Site(RETURNED, carried.returned)
        feeds = stained.feeds.get(site)
        if feeds is not None:
            features = len(next(iter(feeds.values())))
            name = f"<state {carried.argument}>"
            states.append(State(name, features, feeds, {}, carried, stained.axis[site]))
    return states


def _others(
    modules: dict[str, nn.Module], layers: dict[str, WeightLayer], attachments: dict[str, Attachment]
) -> dict[str, nn.Module]:
    """Modules with weights of their own that are neither those of weight layers that ran nor belong to units."""
    pruned = {id(tensor) for layer in layers.values() for tensor in layer.tensors()}
    pruned |= {id(tensor_of(layer.module, name)) for layer in layers.values() for name in layer.further}
    owners = {id(owner_of(layer.module)) for layer in layers.values() if _computed(layer)}
    computed = tuple(f"{name}." for name, module in modules.items() if id(module) in owners)
    return {
        name: module
        for name, module in modules.items()
        if name not in attachments and not name.startswith(computed) and weights_in(module, pruned)
    }


def _shared_parameters(modules: dict[str, nn.Module]) -> dict[str, str]:
    """Modules that share a parameter with another one -> that one."""
    owners: dict[int, dict[int, list[str]]] = {}
    for name, module in modules.items():
        owner = owner_of(module)
        for parameter in owner.parameters(recurse=False):
            owners.setdefault(id(parameter), {}).setdefault(id(owner), []).append(name)
    shared = {}
    for together in owners.values():
        for owner_id, names in together.items() if len(together) > 1 else ():
            other = next(others[0] for other_id, others in together.items() if other_id != owner_id)
            shared.update(dict.fromkeys(names, other))
    return shared


def _activity_site(layer: WeightLayer, wiring: Wiring, stained: Stained) -> Site | None:
    """Where the activity of a layer's units is seen: at the first neurons that carry them all, or where they enter a
    weight layer if no neuron module does (functional activations). That of fused ones is what their rows become.
    """
    fused = stained.fused.get(layer.name)
    for site, neuron in wiring.neurons.items():
        if not neuron.incoming and _carries(neuron.feeds, layer) and (fused is None or site in fused.joined):
            return site
    for reader in wiring.layers.values():
        if reader.entry is None or (fused is not None and Site(reader.name) not in fused.joined):
            continue
        _, entering = next(matrices_of(reader.module))
        feeds = {source: unit[entering] for source, unit in reader.feeds.items()}
        if _carries(feeds, layer):
            site = Site(reader.name)
            if site not in wiring.neurons:
                wiring.neurons[site] = NeuronSite(
                    reader.name,
                    entering.stop,
                    feeds,
                    {source: gated[entering] for source, gated in reader.gates.items()},
                    site,
                    reader.kind.activity_axis,
                    spikes=False,
                    time_axis=None,
                    timesteps=1,
                    incoming=True,
                )
            return site
    return None


def _carries(feeds: Feeds, layer: WeightLayer) -> bool:
    fed = feeds.get(layer.name)
    return fed is not None and len(torch.unique(fed[fed >= 0])) == layer.units


def _prunability(
    layer: WeightLayer, wiring: Wiring, stained: Stained, shared: dict[str, str], widths: set[int]
) -> tuple[Prunability, str]:
    """Whether a layer's units may die, whether they can be removed, and why not."""
    name = layer.name
    if name in stained.unreached:
        return "whole", f"it never ran on the example inputs; {FURTHER_EXAMPLE}"
    if name in stained.unused:
        return "whole", "it is unused: no code of the network calls it"
    readers = [other for other in wiring.layers.values() if name in other.feeds]
    onward = [other for other in readers if not _reads_back(layer, other)]
    reads = [other.feeds[name] for other in readers]
    if name in stained.outputs:
        return "whole", _at_output(layer, onward, widths)
    if _computed(layer):
        return "whole", "its weight is computed from other parameters (weight norm or a parametrisation)"
    if name in shared:
        return "whole", f"it shares a parameter with {shared[name]}"
    if layer.unused:
        return "whole", "it is unused: nothing that it computes reaches the network's output"
    if name in stained.held and not onward:
        return "whole", f"{stained.held[name]}, which never ran, might read its units; {FURTHER_EXAMPLE}"
    if not onward:
        return "whole", "its activity reaches no weight layer: is there a neuron that is not registered?"
    if layer.neuron is None and layer.kind.name != "recurrent":
        return (
            "whole",
            "its units are mixed, or no neuron carries them all, before their activity can be seen",
        )
    for attachment in wiring.attachments.values():
        if name in attachment.feeds and attachment.name in shared:
            fed = f"{attachment.name}, which it feeds,"
            return "whole", f"{fed} shares a parameter with {shared[attachment.name]}"
    if name in layer.feeds and bool((layer.feeds[name][reads_state(layer.module)] == MIXED).any()):
        return "whole", "its units are mixed on their way back to it, so a silent one would not stay silent"
    modulated = None if name in stained.held else _modulated(layer, wiring)
    if modulated is not None:
        return modulated
    for other in readers:
        nonzero = stained.nonzero.get(other.name)
        if nonzero is None:
            continue
        active = nonzero & (other.feeds[name] != NO_UNIT)
        if bool(active[reads_state(other.module)].any()):
            return "whole", f"the state that {other.name} is given is not zero, so a silent unit would not be"
        if bool(active.any()):
            return "whole", (
                f"a silent unit would still send activity to {other.name} ({_cause(name, wiring, stained)})"
            )
    if name in stained.held:
        return (
            "silenced",
            f"{stained.held[name]} never ran on the example inputs and might read its units; {FURTHER_EXAMPLE}",
        )
    if name in stained.deciding:
        return "silenced", "its units decide together what runs (a branch, a router)"
    if any(bool((read == MIXED).any()) for read in reads):
        return "silenced", "its units are mixed before the next weight layer"
    unmapped = [
        site.module
        for site in stained.reached[name]
        if site not in stained.feeds or name not in stained.feeds[site]
    ]
    if unmapped:
        where = "the states that the network returns" if unmapped[0] == RETURNED else unmapped[0]
        return "silenced", f"its units cannot be distinguished at {where}"
    reached = torch.cat([torch.unique(read[read >= 0]) for read in reads])
    if len(torch.unique(reached)) < layer.units:
        return "silenced", "some of its units reach no weight layer"
    for other in readers:
        if _computed(other):
            return "silenced", f"the weight of {other.name} is computed from other parameters"
        if other.name in shared:
            return "silenced", f"{other.name}, which it feeds, shares a parameter with {shared[other.name]}"
    return "prunable", ""


def _at_output(layer: WeightLayer, readers: list[WeightLayer], widths: set[int]) -> str:
    """Why the units of a layer of which dye reached the network's output never die."""
    if readers:
        past = ", ".join(sorted(reader.name for reader in readers))
        return f"its units reach the network's output, beside what they feed ({past})"
    if layer.units in widths:
        return "its units are the network's output"
    return "its units reach the network's output, with no weight layer in between"


def _cause(name: str, wiring: Wiring, stained: Stained) -> str:
    """What may send activity on although a layer is silent."""
    for site in stained.order:
        if (
            site in stained.reached[name]
            and site.module in stained.mixing
            and site.module not in wiring.layers
        ):
            return f"{site.module} mixes its units and adds values of its own, such as biases"
    return "activation with f(0) != 0?"


def _reads_back(layer: WeightLayer, reader: WeightLayer) -> bool:
    """Whether a reader is the same recurrent layer, which passes nothing on by itself."""
    if reader is layer:
        return True
    module, loop = layer.module, reader.module
    return (
        isinstance(module, MatrixView)
        and isinstance(loop, JointView)
        and layer.name.startswith(f"{reader.name}.")
    )


def _computed(layer: WeightLayer) -> bool:
    own = {id(parameter) for parameter in owner_of(layer.module).parameters(recurse=False)}
    return not all(id(tensor) in own for tensor in layer.tensors())


def _modulated(layer: WeightLayer, wiring: Wiring) -> tuple[Prunability, str] | None:
    """Prunability of a layer that scales the activity of others, as a gate that is never quite shut does."""
    modulated: set[str] = set()
    everywhere = True
    for reader in wiring.layers.values():
        if layer.name not in reader.feeds:
            continue
        mine = reader.feeds[layer.name] != NO_UNIT
        others = {source: gated for source, gated in reader.gates.items() if source != layer.name}
        free = ~reader.gates.get(layer.name, torch.zeros_like(mine))
        scaled = torch.zeros_like(mine)
        for source, gated in others.items():
            if bool((gated & mine & free).any()):
                scaled |= gated & free
                modulated.add(source)
        everywhere &= bool(scaled[mine].all())
    if not modulated:
        return None
    names = ", ".join(sorted(modulated))
    if everywhere:
        return "follows", f"its units leave with those of {names}, which they modulate"
    return "whole", f"its units modulate those of {names}, and are read elsewhere too"


def propagate_unremovable(wiring: Wiring) -> None:
    """Units that share a feature with a source that is never removed (as in a residual stream) cannot leave either."""
    changed = True
    while changed:
        changed = False
        for layer in wiring.layers.values():
            if layer.removable:
                stays = _unremovable_source(layer, wiring)
                if stays is not None:
                    source = "the network's input" if stays == INPUT else stays
                    layer.prunability = "silenced" if layer.can_die else "whole"
                    layer.reason = f"its units are joined with those of {source}, which stay"
                    changed = True
                    continue
                equal = _unremovable_equal(layer, wiring)
                if equal is not None:
                    layer.prunability = "silenced" if layer.can_die else "whole"
                    layer.reason = f"it has as many units as {equal}, of which none leave"
                    changed = True


def _unremovable_equal(layer: WeightLayer, wiring: Wiring) -> str | None:
    """A layer that is never removed and has to keep as many units as a layer."""
    together = next((names for names in wiring.levels() if layer.name in names), [])
    return next((name for name in together if not wiring.layers[name].removable), None)


def _unremovable_source(layer: WeightLayer, wiring: Wiring) -> str | None:
    """A source that is never removed and shares a feature with a layer."""
    for reader in wiring.readers():
        if layer.name not in reader.feeds:
            continue
        mine = reader.feeds[layer.name] >= 0
        for other, unit in reader.feeds.items():
            stays = other == INPUT or not wiring.layers[other].removable
            if other != layer.name and stays and bool((mine & (unit != NO_UNIT)).any()):
                return other
    return None
