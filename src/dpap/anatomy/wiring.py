"""What is connected to what, what can be pruned, and why the rest cannot."""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from dpap.anatomy.carried import Carried, change_states
from dpap.anatomy.hidden_state import Rest
from dpap.anatomy.layers import (
    LayerKind,
    called_as,
    gates_of,
    groups_of,
    matrices_of,
    weight_of,
)
from dpap.anatomy.ownership import Belonging
from dpap.anatomy.pytrees import Inputs, Outputs
from dpap.anatomy.staining.codes import INPUT, NO_UNIT, Feeds
from dpap.anatomy.staining.dye import Site
from dpap.anatomy.table import Row, as_html, as_text
from dpap.anatomy.views import FusedView, JointView, MatrixView

Gates = dict[str, Bool[Tensor, "_"]]
"""Source layer -> features that are silent whenever its unit is."""

Tie = tuple[tuple[str, Int64[Tensor, "_"]], ...]
"""Columns of a table: layer, and its unit in each row (`NO_UNIT` where none); those of a row leave together."""

Prunability = Literal["prunable", "silenced", "follows", "whole"]


@dataclass
class Reader:
    """A part of the network at which the activity of units arrives.

    Attributes:
        name: name of the module in the network.
        features: number of features along its activity axis (conv channels, fc inputs).
        feeds: which unit of each source layer feeds each of them; a feature that several layers feed is joined, as in
            a residual stream; what no layer feeds comes from the network's input or constants.
        gates: source -> features that are silent whenever its unit is, whatever else feeds them.
    """

    name: str
    features: int
    feeds: Feeds
    gates: Gates

    @property
    def key(self) -> str | Site:
        """Key of this reader: its name, or the site where a module has several."""
        return self.name


@dataclass
class WeightLayer(Reader):
    """A weight layer (Linear, convolution, or registered), and the population of its units.

    Attributes:
        module: the layer.
        kind: where its weight keeps units and features.
        units: number of units (conv channels, fc neurons).
        positions: how often its weights are used in one forward of the example inputs, batch and time counted in.
        neuron: where the activity of its units is seen: a neuron module and its calls, or None.
        prunability: "prunable": units die and can be removed; "silenced": units die but the layer keeps its size;
            "follows": units do not die by themselves and leave with those that they modulate; "whole": its units
            never die.
        reason: why it is not prunable, or "".
        synapses: whether single synapses can die (fully connected layers).
        fixed: whether its weight stays as it is whatever dies around it: computed from other parameters, or shared
            with another module.
        further: parameters and buffers besides weight and bias, by name, with the axes along which they belong to
            its units and features.
        unused: whether nothing that it computes reaches the network's output.
    """

    module: nn.Module
    kind: LayerKind
    units: int
    positions: int = 0
    neuron: Site | None = None
    prunability: Prunability = "prunable"
    reason: str = ""
    synapses: bool = False
    fixed: bool = False
    further: dict[str, Belonging] = field(default_factory=dict)
    unused: bool = False

    def tensors(self) -> Iterator[Tensor]:
        """Its weight, or each of its weights."""
        for matrix, _ in matrices_of(self.module):
            yield weight_of(matrix)

    @property
    def weights(self) -> int:
        """Number of weights."""
        return sum(tensor.numel() for tensor in self.tensors())

    @property
    def groups(self) -> int:
        """Groups of units, each of which reads its own group of features."""
        return groups_of(self.module)

    @cached_property
    def taps(self) -> int:
        """Weights between one unit and one feature that it reads: the kernel's size, 1 in fc layers."""
        return self.weights * self.groups // max(self.units * self.features, 1)

    @property
    def called(self) -> nn.Module | None:
        """The module that is called with its features and returns its units; None of recurrent layers."""
        return called_as(self.module)

    @property
    def entry(self) -> nn.Module | None:
        """The module that is given the features that it reads; None where they stay inside a recurrent module."""
        if isinstance(self.module, JointView):
            return self.module.owner if self.module.outer else None
        return self.called

    def weights_between(self, units: int, features: int) -> int:
        """Number of weights that so many units and features would have, equally many in each group."""
        return units * features // self.groups * self.taps

    @property
    def can_die(self) -> bool:
        """Whether its units die by themselves."""
        return self.prunability in ("prunable", "silenced")

    @property
    def removable(self) -> bool:
        """Whether its units can be removed."""
        return self.prunability in ("prunable", "follows")


@dataclass
class Attachment(Reader):
    """A module with parameters or buffers per unit of others: normalisation, learnable neurons, depthwise convolution.

    Attributes:
        module: the module.
        tensors: its parameters and buffers with a value per feature, by name, and the axis that counts them.
    """

    module: nn.Module
    tensors: dict[str, int] = field(default_factory=dict)


@dataclass
class NeuronSite(Reader):
    """Neurons that run: a module, which of its calls, and the units that they carry.

    Attributes:
        site: module and call.
        axis: axis of its activity that counts features, from the end.
        spikes: whether it emits spikes.
        time_axis: axis of its output over which time runs, or None.
        timesteps: timesteps seen on the example input.
        incoming: whether the activity is that of the features that enter the weight layer `site.module`, because
            no neuron module carries the units (a functional activation).
    """

    site: Site
    axis: int
    spikes: bool
    time_axis: int | None
    timesteps: int
    incoming: bool = False

    @property
    def key(self) -> str | Site:
        """The site."""
        return self.site


@dataclass
class State(Reader):
    """State that the network is given and returns, such as a membrane: it is as wide as the units that it belongs to.

    Attributes:
        carried: its places among arguments and returned tensors.
        axis: axis of it that counts features, from the end.
    """

    carried: Carried
    axis: int


@dataclass
class Wiring:
    """The anatomy of a network.

    Attributes:
        layers: weight layers in the order in which they run.
        neurons: where activity is seen.
        attachments: modules with parameters or buffers per unit of others.
        training_paths: whether it includes paths that only training takes, such as auxiliary heads.
        stepped: whether a forward is one timestep: spiking neurons keep their state from call to call.
        ties: units that leave together although no feature joins them, as those of one number in parts that are cut
            from a layer by `chunk`.
        others: further modules that hold weights, of which none can be pruned: of classes that are no weight layers,
            and weight layers that did not run.
        outputs: gives the tensors that must keep their width, of what forward returns; all must if None.
        states: arguments that are states, which the network returns.
        rest: what hidden state of its own, besides that of known neurons, is reset to.
        carries: whether a forward returns something else after another one than after a reset.
        precision: of the network when this was found.

    Example:
        >>> import torch, dpap
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
        >>> wiring = dpap.find_wiring(model, (torch.rand(2, 1, 8, 8),))
        >>> print(wiring.table(width=100))  # print(wiring): as wide as the terminal
        layer  kind  units  features  weights  fed by  seen at  prunable
        -----  ----  -----  --------  -------  ------  -------  --------------------------------------
        0      conv  4      1         36       input   1        units
        3      fc    10     144       1,440    0       -        no: its units are the network's output
        total: 2 layers (1 prunable, 1 whole), 1,476 weights, of which 100.0% can die
    """

    layers: dict[str, WeightLayer]
    neurons: dict[Site, NeuronSite]
    attachments: dict[str, Attachment]
    training_paths: bool = False
    stepped: bool = False
    ties: list[Tie] = field(default_factory=list)
    others: dict[str, nn.Module] = field(default_factory=dict)
    outputs: Outputs | None = None
    states: list[State] = field(default_factory=list)
    rest: list[Rest] = field(default_factory=list)
    carries: bool = False
    precision: torch.dtype | None = None

    @property
    def spiking(self) -> bool:
        """Whether any neuron spikes."""
        return any(neuron.spikes for neuron in self.neurons.values())

    def neuron_of(self, layer: WeightLayer) -> NeuronSite | None:
        """The neurons at which the activity of a layer's units is seen."""
        return None if layer.neuron is None else self.neurons[layer.neuron]

    def levels(self) -> list[list[str]]:
        """Layers that keep equally many units: of one recurrent module, all layers and directions; all projections."""
        found: dict[tuple[int, type], list[str]] = {}
        for name, layer in self.layers.items():
            if isinstance(layer.module, MatrixView | JointView):
                found.setdefault((id(layer.module.owner), type(layer.module)), []).append(name)
        return [names for names in found.values() if len(names) > 1]

    def projections(self) -> dict[str, str]:
        """Projection of an LSTM -> the layer whose units it reads."""
        return {
            name: next(source for source in self.layers if name == f"{source}.projection")
            for name, layer in self.layers.items()
            if isinstance(layer.module, MatrixView)
        }

    def readers(self) -> Iterator[Reader]:
        """Every part at which activity arrives."""
        yield from self.layers.values()
        yield from self.attachments.values()
        yield from self.neurons.values()
        yield from self.states

    def with_states(
        self, inputs: Inputs, features: dict[str | Site, Tensor], *, silent: bool = False
    ) -> Inputs:
        """Inputs whose states are as wide as the network after a removal.

        Args:
            inputs: for the network as it is.
            features: key of a reader -> indices of its features that remain.
            silent: whether the others become zero instead of leaving.
        """

        def of(state: State) -> Callable[[Tensor], Tensor]:
            kept = features[state.key]

            def change(tensor: Tensor) -> Tensor:
                if tensor.ndim < -state.axis or tensor.shape[state.axis] != state.features:
                    return tensor
                index = kept.to(tensor.device)
                left = tensor.index_select(state.axis, index)
                return torch.zeros_like(tensor).index_copy(state.axis, index, left) if silent else left

            return change

        changes = {state.carried.argument: of(state) for state in self.states if state.key in features}
        return change_states(inputs, changes)

    def macs(
        self, units: dict[str, Tensor] | None = None, features: dict[str | Site, Tensor] | None = None
    ) -> int:
        """MACs (multiplications) of all weight layers in one forward of the example inputs.

        Args:
            units: weight layer -> indices of its units that remain, where not all do.
            features: key of a reader -> indices of its features that remain, where not all do.
        """
        return sum(self.layer_macs(units, features).values())

    def layer_macs(
        self, units: dict[str, Tensor] | None = None, features: dict[str | Site, Tensor] | None = None
    ) -> dict[str, int]:
        """The same of each weight layer."""
        found = {}
        for name, layer in self.layers.items():
            outgoing, incoming = (units or {}).get(name), (features or {}).get(name)
            found[name] = layer.positions * layer.weights_between(
                layer.units if outgoing is None else len(outgoing),
                layer.features if incoming is None else len(incoming),
            )
        return found

    def keep(self, units: dict[str, Tensor], features: dict[str | Site, Tensor]) -> None:
        """Renumber units and features after a removal.

        Args:
            units: weight layer -> indices of its units that remain.
            features: key of a reader -> indices of its features that remain.
        """
        renumber = {}
        for name, kept in units.items():
            mapping = torch.full((self.layers[name].units,), NO_UNIT, dtype=torch.int64)
            mapping[kept] = torch.arange(len(kept))
            renumber[name] = mapping
            self.layers[name].units = len(kept)

        def follow(feeds: Feeds, kept: Tensor | None) -> Feeds:
            followed = {}
            for source, unit in feeds.items():
                left = unit if kept is None else unit[kept]
                if source in renumber:
                    left = torch.where(left >= 0, renumber[source][left.clamp(min=0)], left)
                followed[source] = left
            return followed

        for reader in self.readers():
            kept_features = features.get(reader.key)
            reader.feeds = follow(reader.feeds, kept_features)
            if kept_features is not None:
                reader.gates = {source: gated[kept_features] for source, gated in reader.gates.items()}
                reader.features = len(kept_features)
        self.ties = [self._remaining(tie, renumber) for tie in self.ties]

    @staticmethod
    def _remaining(tie: Tie, renumber: dict[str, Tensor]) -> Tie:
        """A tie after a removal: rows of which nothing is left are dropped."""
        columns = [
            (name, torch.where(unit >= 0, renumber[name][unit.clamp(min=0)], unit))
            if name in renumber
            else (name, unit)
            for name, unit in tie
        ]
        left = torch.stack([unit >= 0 for _, unit in columns]).any(0)
        return tuple((name, unit[left]) for name, unit in columns)

    def table(self, width: int | None = None) -> str:
        """The wiring as a table: where there are many layers, those of one shape share a row.

        Args:
            width: characters a line; what is too wide is shortened in the middle, and reasons follow as notes below.
                The terminal's width if None.
        """
        return as_text(self._rows(), self._total(), width)

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return as_html(self._rows(), self._total())

    def _rows(self) -> list[Row]:
        rows = []
        level = {name: f"as many in each of {len(names)}" for names in self.levels() for name in names}
        for layer in self.layers.values():
            verdict = {"silenced": "silenced only", "follows": "no", "whole": "no"}.get(layer.prunability)
            reason = layer.reason
            if verdict is None:
                verdict = "units and synapses" if layer.synapses else "units"
                reason = "as many in each group" if layer.groups > 1 else level.get(layer.name, "")
                if isinstance(layer.module, FusedView):
                    reason = f"each has {gates_of(layer.module)} rows of its weight"
            rows.append(
                Row(
                    layer.name,
                    layer.kind.name,
                    (layer.units, layer.features),
                    layer.weights,
                    tuple(name if name != INPUT else "input" for name in layer.feeds) or ("?",),
                    layer.neuron.module if layer.neuron else "-",
                    verdict,
                    reason,
                )
            )
        return rows

    def _total(self) -> str:
        """How much can die, and in how many layers units can leave."""
        weights = sum(layer.weights for layer in self.layers.values())
        may_die = sum(layer.weights for layer in self.layers.values() if self._may_lose_weights(layer))
        counts = Counter(layer.prunability for layer in self.layers.values())
        verdicts: dict[Prunability, str] = {
            "prunable": "prunable",
            "silenced": "silenced only",
            "follows": "following others",
            "whole": "whole",
        }
        found = ", ".join(f"{counts[key]} {words}" for key, words in verdicts.items() if counts[key])
        total = (
            f"total: {len(self.layers)} layers ({found}), {weights:,} weights, of which "
            f"{may_die / max(weights, 1):.1%} can die"
        )
        return "; ".join((total, *self._about_others()))

    def _may_lose_weights(self, layer: WeightLayer) -> bool:
        """Whether units of a layer, or of one that feeds it, can die."""
        dying = (self.layers[source].can_die for source in layer.feeds if source in self.layers)
        return not layer.fixed and (layer.can_die or layer.prunability == "follows" or any(dying))

    def _about_others(self) -> Iterator[str]:
        """What holds weights besides those in the table, with its share of all weights."""
        if not self.others:
            return
        listed = {id(tensor): tensor for layer in self.layers.values() for tensor in layer.tensors()}
        of_units = weights_in_all(attachment.module for attachment in self.attachments.values())
        rest = weights_in_all(self.others.values(), listed)
        share = rest / (rest + of_units + sum(tensor.numel() for tensor in listed.values()))
        yield (
            f"{share:.0%} of all weights lie elsewhere and cannot be pruned: {named_with_class(self.others)}; "
            "dpap.register_layer makes a class of weight layers known"
        )


def named_with_class(modules: dict[str, nn.Module]) -> str:
    """Modules by name and class, in one line."""
    return ", ".join(f"{name or 'the network'} ({type(module).__name__})" for name, module in modules.items())


def weights_in(module: nn.Module, besides: Container[int] = ()) -> int:
    """Number of weights that a module holds itself: of parameters with two axes or more.

    Args:
        module: its children are not counted.
        besides: ids of parameters that do not count.
    """
    return weights_in_all((module,), besides)


def weights_in_all(modules: Iterable[nn.Module], besides: Container[int] = ()) -> int:
    """The same of several modules; what they share counts once."""
    own = {id(one): one for module in modules for one in module.parameters(recurse=False)}
    return sum(one.numel() for one in own.values() if one.ndim > 1 and id(one) not in besides)


def receiving(
    feeds: Feeds, alive: dict[str, Bool[Tensor, "_"]], features: int, gates: Gates | None = None
) -> Bool[Tensor, "_"]:
    """Which features still receive something: those with an alive source, or with none to lose, and no dead gate.

    Args:
        feeds: which units feed the features.
        alive: weight layer -> which of its units are alive; of layers that are not in it, all are.
        features: how many there are.
        gates: which features fall silent with which source.
    """
    fed = fed_alive = None
    for source, unit in feeds.items():
        known = unit != NO_UNIT
        here = _of_units(alive[source], unit, _MIXED_ALONE) if source in alive else known
        fed = known if fed is None else fed | known
        fed_alive = here if fed_alive is None else fed_alive | here
    if fed is None or fed_alive is None:
        return torch.ones(features, dtype=torch.bool)
    receives = fed_alive | ~fed
    for source, gate in (gates or {}).items():
        if source in alive:
            receives &= ~gate | _of_units(alive[source], feeds[source], _BOTH)
    return receives


# what stands for features that many units feed, and for those that none does, where `MIXED` and `NO_UNIT` find it
_MIXED_ALONE, _BOTH = torch.tensor([True, False]), torch.tensor([True, True])


def _of_units(
    alive: Bool[Tensor, "_"], unit: Int64[Tensor, "_"], others: Bool[Tensor, "2"]
) -> Bool[Tensor, "_"]:
    """Whether the unit of each feature is alive. Few operations: this is asked for each reader, whenever costs are."""
    return torch.cat((alive.cpu(), others))[unit]
