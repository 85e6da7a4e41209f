"""What is connected to what, what can be pruned, and why the rest cannot."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from dpap.anatomy.nested import Inputs
from dpap.anatomy.neurons import neuron_kind
from dpap.anatomy.projections import ProjectionKind, projection_kind, size_of, weight_of
from dpap.anatomy.stain import INPUT, MIXED, NOBODY, Site, Stained, stain

Feeds = dict[str, Int64[Tensor, "_"]]
"""Source projection -> its unit that feeds each feature (`NOBODY` where it feeds none)."""


@dataclass
class Reader:
    """A part of the network at which the activity of units arrives.

    Attributes:
        name: name of the module in the network.
        features: number of features along its activity axis (conv channels, fc inputs).
        feeds: who feeds each of them; what no projection feeds comes from the network's input or constants.
    """

    name: str
    features: int
    feeds: Feeds


@dataclass
class Projection(Reader):
    """A weight layer, and with it the population of its units.

    Attributes:
        module: the layer.
        kind: where its weight keeps units and features.
        units: number of units (conv channels, fc neurons).
        neuron: where the activity of its units is seen: a neuron module and its calls, or None.
        fate: "prunable": units die and can be removed; "silenced": units die but the layer keeps its size;
            "whole": its units never die.
        reason: why it is not prunable, or "".
        synapses: whether single synapses can die (fully connected layers).
    """

    module: nn.Module
    kind: ProjectionKind
    units: int
    neuron: Site | None = None
    fate: Literal["prunable", "silenced", "whole"] = "prunable"
    reason: str = ""
    synapses: bool = False

    @property
    def weights(self) -> int:
        """Number of weights."""
        return weight_of(self.module).numel()

    @property
    def taps(self) -> int:
        """Weights between one unit and one feature: the kernel's size, 1 in fc layers."""
        return weight_of(self.module).numel() // max(self.units * self.features, 1)


@dataclass
class Attachment(Reader):
    """A module that keeps parameters or buffers per unit of others: normalisation, learnable neurons.

    Attributes:
        module: the module.
    """

    module: nn.Module


@dataclass
class NeuronSite(Reader):
    """Neurons at work: a module, which of its calls, and whose units they carry.

    Attributes:
        site: module and call.
        axis: axis of its activity that counts features, from the end.
        spikes: whether it emits spikes.
        time_axis: axis of its output over which time runs, or None.
        timesteps: timesteps seen on the example input.
        incoming: whether the activity is that of the features that enter the projection `site.module`, because
            no neuron module carries the units (a functional activation).
    """

    site: Site
    axis: int
    spikes: bool
    time_axis: int | None
    timesteps: int
    incoming: bool = False


@dataclass
class Wiring:
    """The anatomy of a network: projections in the order in which they run, neurons and attachments."""

    projections: dict[str, Projection]
    neurons: dict[Site, NeuronSite]
    attachments: dict[str, Attachment]

    @property
    def spiking(self) -> bool:
        """Whether any neuron spikes."""
        return any(neuron.spikes for neuron in self.neurons.values())

    def neuron_of(self, projection: Projection) -> NeuronSite | None:
        """The neurons at which the activity of a projection's units is seen."""
        return None if projection.neuron is None else self.neurons[projection.neuron]

    def readers(self) -> Iterator[Reader]:
        """Every part at which activity arrives."""
        yield from self.projections.values()
        yield from self.attachments.values()
        yield from self.neurons.values()

    def keep(self, units: dict[str, Tensor], features: dict[str, Tensor]) -> None:
        """Renumber units and features after a removal.

        Args:
            units: projection -> indices of its units that remain.
            features: projection, attachment or neuron module -> indices of its features that remain.
        """
        renumber = {}
        for name, kept in units.items():
            mapping = torch.full((self.projections[name].units,), NOBODY, dtype=torch.int64)
            mapping[kept] = torch.arange(len(kept))
            renumber[name] = mapping
            self.projections[name].units = len(kept)

        def follow(feeds: Feeds, kept: Tensor | None) -> Feeds:
            followed = {}
            for source, unit in feeds.items():
                left = unit if kept is None else unit[kept]
                if source in renumber:
                    left = torch.where(left >= 0, renumber[source][left.clamp(min=0)], left)
                followed[source] = left
            return followed

        for reader in self.readers():
            kept_features = features.get(reader.name)
            reader.feeds = follow(reader.feeds, kept_features)
            if kept_features is not None:
                reader.features = len(kept_features)

    def __str__(self) -> str:
        rows = [("layer", "kind", "units", "features", "weights", "fed by", "seen at", "prunable")]
        for projection in self.projections.values():
            fed = [name if name != INPUT else "input" for name in projection.feeds] or ["?"]
            if projection.fate == "prunable":
                verdict = "units and synapses" if projection.synapses else "units"
            else:
                what = {"silenced": "units, silenced only: ", "whole": "no: "}[projection.fate]
                verdict = what + projection.reason
            rows.append(
                (
                    projection.name,
                    projection.kind.name,
                    f"{projection.units:,}",
                    f"{projection.features:,}",
                    f"{projection.weights:,}",
                    ", ".join(fed),
                    projection.neuron.module if projection.neuron else "-",
                    verdict,
                )
            )
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join(line.rstrip() for line in lines)


def find_wiring(model: nn.Module, example_inputs: Inputs) -> Wiring:
    """Find the wiring of a network by staining it.

    Args:
        model: any network that runs forward.
        example_inputs: what its forward takes: a tuple of positional or a dictionary of keyword arguments.

    Raises:
        ValueError: where no projection runs, or where none may lose a unit.
    """
    stained = stain(model, example_inputs)
    modules = dict(model.named_modules())
    projections = _projections(modules, stained)
    if not projections:
        raise ValueError(
            "no projection (Linear or convolution) of the network ran on the example inputs; give the inputs that "
            "training gives, and a network whose layers are torch.nn modules"
        )
    neurons = _neurons(modules, stained)
    attachments = _attachments(modules, stained)
    wiring = Wiring(projections, neurons, attachments)
    for projection in projections.values():
        projection.neuron = _activity_of(projection, wiring)
        projection.fate, projection.reason = _fate(projection, wiring, stained)
        projection.synapses = projection.kind.name == "fc" and projection.fate != "whole"
    _spread_permanence(wiring)
    return wiring


def _projections(modules: dict[str, nn.Module], stained: Stained) -> dict[str, Projection]:
    projections = {}
    for site in stained.order:
        kind = projection_kind(modules[site.module])
        if kind is None:
            continue
        module = modules[site.module]
        units, features = size_of(module)
        feeds = stained.feeds.get(site, {})
        projections[site.module] = Projection(site.module, features, feeds, module, kind, units)
    return projections


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
            site,
            stained.axis[site],
            kind.spikes,
            time_axis,
            1 if time_axis is None else stained.shapes[site][time_axis],
        )
    return neurons


def _attachments(modules: dict[str, nn.Module], stained: Stained) -> dict[str, Attachment]:
    attachments: dict[str, Attachment] = {}
    for site, feeds in stained.feeds.items():
        module = modules[site.module]
        if projection_kind(module) is not None or site not in stained.axis:
            continue
        features = len(next(iter(feeds.values())))
        if not unit_tensors(module, features):
            continue
        attachments.setdefault(site.module, Attachment(site.module, features, feeds, module))
    return attachments


def receiving(feeds: Feeds, alive: dict[str, Bool[Tensor, "_"]], features: int) -> Bool[Tensor, "_"]:
    """Which features still receive something: those with a living source, or with none to lose.

    Args:
        feeds: who feeds the features.
        alive: projection -> which of its units live; others live whole.
        features: how many there are.
    """
    fed = torch.zeros(features, dtype=torch.bool)
    living = torch.zeros(features, dtype=torch.bool)
    for source, unit in feeds.items():
        fed |= unit != NOBODY
        if source in alive:
            known = unit >= 0
            living[known] |= alive[source].cpu()[unit[known]]
            living |= unit == MIXED
        else:
            living |= unit != NOBODY
    return living | ~fed


def unit_tensors(module: nn.Module, features: int) -> dict[str, int]:
    """Names of a module's own parameters and buffers with one value per feature -> the axis that counts them."""
    found = {}
    own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    for name, tensor in own:
        axes = [axis for axis, size in enumerate(tensor.shape) if size == features]
        if axes and features > 1:
            found[name] = axes[-1]
    return found


def _activity_of(projection: Projection, wiring: Wiring) -> Site | None:
    """The first neurons that carry every unit of a projection."""
    for site, neuron in wiring.neurons.items():
        carried = neuron.feeds.get(projection.name)
        if carried is not None and len(torch.unique(carried[carried >= 0])) == projection.units:
            return site
    return None


def _fate(
    projection: Projection, wiring: Wiring, stained: Stained
) -> tuple[Literal["prunable", "silenced", "whole"], str]:
    """Whether a projection's units may die, whether they can be removed, and why not."""
    name = projection.name
    reads = [other.feeds[name] for other in wiring.projections.values() if name in other.feeds]
    if name in stained.outputs:
        return "whole", "its units are the network's output"
    if getattr(projection.module, "groups", 1) != 1:
        return "whole", "grouped convolution"
    if "weight" not in projection.module._parameters:
        return "whole", "its weight is computed from other parameters (weight norm or a parametrisation)"
    if not reads:
        return "whole", "its activity reaches no weight layer: is there a neuron that is not registered?"
    if projection.neuron is None:
        return "whole", "no neuron module carries its units, so their activity is not seen"
    for other in wiring.projections.values():
        loud = stained.loud.get(other.name)
        if loud is not None and name in other.feeds and bool((loud & (other.feeds[name] != NOBODY)).any()):
            return "whole", f"a silent unit would still be heard at {other.name} (activation with f(0) != 0?)"
    if any(bool((read == MIXED).any()) for read in reads):
        return "silenced", "its units are mixed before the next weight layer"
    unmapped = [
        site.module
        for site in stained.reached[name]
        if site not in stained.feeds or name not in stained.feeds[site]
    ]
    if unmapped:
        return "silenced", f"its units cannot be told apart at {unmapped[0]}"
    reached = torch.cat([torch.unique(read[read >= 0]) for read in reads])
    if len(torch.unique(reached)) < projection.units:
        return "silenced", "some of its units reach no weight layer"
    for other in wiring.projections.values():
        if name in other.feeds and getattr(other.module, "groups", 1) != 1:
            return "silenced", f"the grouped convolution {other.name} reads it"
        if name in other.feeds and "weight" not in other.module._parameters:
            return "silenced", f"the weight of {other.name} is computed from other parameters"
    return "prunable", ""


def _spread_permanence(wiring: Wiring) -> None:
    """Units that share a feature with a source that never leaves cannot leave either."""
    changed = True
    while changed:
        changed = False
        for projection in wiring.projections.values():
            if projection.fate != "prunable":
                continue
            for feeds in (reader.feeds for reader in wiring.readers()):
                if projection.name not in feeds:
                    continue
                mine = feeds[projection.name] >= 0
                for other, unit in feeds.items():
                    stays = other == INPUT or wiring.projections[other].fate != "prunable"
                    if other != projection.name and stays and bool((mine & (unit != NOBODY)).any()):
                        who = "the network's input" if other == INPUT else other
                        projection.fate, projection.reason = (
                            "silenced",
                            f"its units are added to those of {who}",
                        )
                        changed = True
                        break
                if projection.fate != "prunable":
                    break
