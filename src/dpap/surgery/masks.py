"""Masks of what is alive: units, synapses and neuron-timesteps of every weight layer, and what can be removed."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from dpap.anatomy import Wiring
from dpap.anatomy.layers import weight_of
from dpap.anatomy.staining.codes import MIXED
from dpap.anatomy.wiring import Feeds, Reader, WeightLayer, receiving


@dataclass
class Masks:
    """What is alive, by weight layer; True is alive.

    Attributes:
        units: of every layer with units that may die.
        synapses: of every fully connected layer with synapses that may die.
        timesteps: [T, units] of every layer with neuron-timesteps that may die.
    """

    units: dict[str, Bool[Tensor, "_"]]
    synapses: dict[str, Bool[Tensor, "_ _"]]
    timesteps: dict[str, Bool[Tensor, "_ _"]]

    @classmethod
    def all_alive(cls, wiring: Wiring, *, synapses: bool, timesteps: bool) -> "Masks":
        """Nothing is pruned."""
        units, single, times = {}, {}, {}
        for layer in wiring.layers.values():
            device = weight_of(layer.module).device
            if layer.can_die:
                units[layer.name] = torch.ones(layer.units, dtype=torch.bool, device=device)
            if synapses and layer.synapses:
                shape = (layer.units, layer.features)
                single[layer.name] = torch.ones(shape, dtype=torch.bool, device=device)
            neuron = wiring.neurons[layer.neuron] if layer.neuron else None
            if timesteps and layer.can_die and neuron is not None and neuron.timesteps > 1:
                shape = (neuron.timesteps, layer.units)
                times[layer.name] = torch.ones(shape, dtype=torch.bool, device=device)
        return cls(units, single, times)

    def tensors(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Each kind by its name."""
        yield "units", self.units
        yield "synapses", self.synapses
        yield "timesteps", self.timesteps

    def copy(self) -> "Masks":
        """An independent copy."""
        return Masks(*({name: alive.clone() for name, alive in kind.items()} for _, kind in self.tensors()))

    def digest(self) -> int:
        """A number below 2^48 that stands for what is alive."""
        total = hashlib.sha256()
        for kind, masks in self.tensors():
            for name, alive in masks.items():
                total.update(f"{kind} {name} {tuple(alive.shape)}".encode())
                total.update(alive.cpu().contiguous().numpy().tobytes())
        return int.from_bytes(total.digest()[:6], "big")

    def keep(self, name: str, units: Tensor | None, features: Tensor | None) -> None:
        """Drop all but the given units and features of a layer; None keeps all of them."""
        if units is not None:
            self.units[name] = self.units[name][units]
            if name in self.timesteps:
                self.timesteps[name] = self.timesteps[name][:, units]
        if name in self.synapses:
            synapses = self.synapses[name] if units is None else self.synapses[name][units]
            self.synapses[name] = synapses if features is None else synapses[:, features]

    def features(self, reader: Reader) -> Bool[Tensor, "_"]:
        """Which features of a reader still receive something."""
        return receiving(reader.feeds, self.units, reader.features, reader.gates)

    def useful(self, wiring: Wiring) -> dict[str, Bool[Tensor, "_"]]:
        """Layer -> which of its alive units any layer receives: a unit that only scales dead ones is not received."""
        return self._useful(wiring, self._features(wiring))

    def _features(self, wiring: Wiring) -> dict[str, Bool[Tensor, "_"]]:
        return {name: self.features(layer) for name, layer in wiring.layers.items()}

    def _useful(self, wiring: Wiring, features: dict[str, Bool[Tensor, "_"]]) -> dict[str, Bool[Tensor, "_"]]:
        # two more, where `MIXED` and `NO_UNIT` arrive
        received = {
            name: torch.zeros(layer.units + 2, dtype=torch.bool) for name, layer in wiring.layers.items()
        }
        for name, reader in wiring.layers.items():
            read = self._read(reader, features[name])
            for source, unit in reader.feeds.items():
                if source in received:
                    received[source][unit[read]] = True
        useful = {}
        for name, layer in wiring.layers.items():
            mask = self.units.get(name)
            alive = torch.ones(layer.units, dtype=torch.bool) if mask is None else mask.cpu()
            arrived = received[name]
            useful[name] = alive & (arrived[:-2] | arrived[MIXED]) if layer.removable else alive
        for name, layer in wiring.layers.items():
            if layer.unused and layer.removable:
                useful[name] = _tied_to(name, useful, wiring)
        return useful

    def _read(self, reader: WeightLayer, features: Bool[Tensor, "_"]) -> Bool[Tensor, "_"]:
        """Which of these features of a layer any alive unit of their group reads."""
        units = self.units.get(reader.name)
        if units is None or reader.groups == 1:
            return features
        alive = units.cpu().view(reader.groups, -1).any(1)
        return features & alive.repeat_interleave(reader.features // reader.groups)

    def weights(self, wiring: Wiring) -> dict[str, tuple[int, int]]:
        """Layer -> (alive weights, weights), for every layer of which any weight can die."""
        alive = self.alive_weights(wiring)
        return {name: (count, wiring.layers[name].weights) for name, count in alive.items()}

    def alive_weights(self, wiring: Wiring) -> dict[str, int]:
        """Layer -> its alive weights, for every layer of which any weight can die.

        A weight is dead where its synapse, its unit or the source of its feature is.
        """
        counts = {}
        every = self._features(wiring)
        useful = self._useful(wiring, every)
        for name, layer in wiring.layers.items():
            if (
                name not in self.units
                and not any(source in self.units for source in layer.feeds)
                and layer.prunability != "follows"
            ):
                continue
            if layer.fixed:
                continue
            features, units = every[name], useful[name]
            if name in self.synapses:
                alive = int((self.synapses[name].cpu() & features & units[:, None]).count_nonzero())
            else:
                in_group = features.view(layer.groups, -1).sum(1)
                alive = int((units.view(layer.groups, -1).sum(1) * in_group).sum())
            counts[name] = alive * layer.taps
        return counts

    def removable(self, wiring: Wiring, round_to: int = 1) -> dict[str, Bool[Tensor, "_"]]:
        """Units that can be removed: dead or useless, as is all that is added to them wherever they are read.

        Units joined in a residual stream leave only together; grouped convolutions lose equally many units, and
        equally many features, in every group; a recurrent module equally many in each of its layers and directions.

        Args:
            wiring: of the network.
            round_to: the widths that remain are multiples of it where possible; dead units stay as zeros for that.
        """
        useful = self.useful(wiring)
        leaving = {
            name: ~useful[name] if layer.removable else torch.zeros(layer.units, dtype=torch.bool)
            for name, layer in wiring.layers.items()
        }
        while any(
            [
                _keep_joined(wiring, leaving),
                _keep_tied(wiring, leaving),
                _keep_groups(wiring, leaving),
                _keep_levels(wiring, leaving),
                _keep_widths(leaving, round_to),
            ]
        ):
            pass
        return leaving


def _tied_to(name: str, useful: dict[str, Bool[Tensor, "_"]], wiring: Wiring) -> Bool[Tensor, "_"]:
    """Which units of an unused layer are tied to useful ones of others."""
    tied = torch.zeros_like(useful[name])
    for tie in wiring.ties:
        others = [
            (unit >= 0) & useful[other][unit.clamp(min=0)]
            for other, unit in tie
            if not wiring.layers[other].unused
        ]
        for own in (unit for other, unit in tie if other == name and others):
            tied[own[torch.stack(others).any(0) & (own >= 0)]] = True
    return tied


def _keep_joined(wiring: Wiring, leaving: dict[str, Bool[Tensor, "_"]]) -> bool:
    """Keep units that feed a feature which stays; returns whether there were any."""
    changed = False
    for feeds in (reader.feeds for reader in wiring.readers()):
        # a feature of one source stays because its unit does
        stays = feature_stays(feeds, leaving) if len(feeds) > 1 else None
        if stays is None:
            continue
        for source, unit in feeds.items():
            if source not in leaving:
                continue
            held = unit[stays & (unit >= 0)]
            if bool(leaving[source][held].any()):
                leaving[source][held] = False
                changed = True
    return changed


def _keep_tied(wiring: Wiring, leaving: dict[str, Bool[Tensor, "_"]]) -> bool:
    """Keep units that are tied to one which stays; returns whether there were any."""
    changed = False
    for tie in wiring.ties:
        stays = torch.stack([(unit >= 0) & ~leaving[name][unit.clamp(min=0)] for name, unit in tie]).any(0)
        for name, unit in tie:
            held = unit[stays & (unit >= 0)]
            if bool(leaving[name][held].any()):
                leaving[name][held] = False
                changed = True
    return changed


def _keep_groups(wiring: Wiring, leaving: dict[str, Bool[Tensor, "_"]]) -> bool:
    """Keep units until equally many units and features leave every group of each grouped convolution."""
    changed = False
    for name, layer in wiring.layers.items():
        if layer.groups == 1:
            continue
        changed |= _level_groups(leaving[name], layer.groups, leaving[name])
        stays = feature_stays(layer.feeds, leaving)
        if stays is None:
            continue
        leave = ~stays
        if _level_groups(leave, layer.groups, leave):
            held = ~stays & ~leave
            for source, unit in layer.feeds.items():
                if source in leaving:
                    leaving[source][unit[held & (unit >= 0)]] = False
            changed = True
    return changed


def _level_groups(leave: Bool[Tensor, "_"], groups: int, out: Bool[Tensor, "_"]) -> bool:
    """Let every group lose equally many: the first of each leave; returns whether that changed anything."""
    grouped = leave.view(groups, -1)
    number = int(grouped.sum(1).min())
    first = grouped & (grouped.cumsum(1) <= number)
    changed = bool((first != grouped).any())
    out.copy_(first.flatten())
    return changed


def _keep_levels(wiring: Wiring, leaving: dict[str, Bool[Tensor, "_"]]) -> bool:
    """Keep units until equally many leave each layer and direction of a recurrent module, and more units than
    projected ones remain, as torch wants it; returns whether there were any.
    """
    changed = False
    for names in wiring.levels():
        number = min(int(leaving[name].sum()) for name in names)
        for name in names:
            changed |= _keep_last(leaving[name], int(leaving[name].sum()) - number)
    for name, below in wiring.projections().items():
        width, least = (int((~leaving[one]).sum()) for one in (below, name))
        changed |= _keep_last(leaving[below], min(least + 1 - width, int(leaving[below].sum())))
    return changed


def _keep_last(leave: Bool[Tensor, "_"], number: int) -> bool:
    """Keep so many of those that would leave, the last; returns whether there were any."""
    if number > 0:
        leave[leave.nonzero().flatten()[-number:]] = False
    return number > 0


def _keep_widths(leaving: dict[str, Bool[Tensor, "_"]], round_to: int) -> bool:
    """Keep units until every width is a multiple above 0; returns whether that changed anything."""
    changed = False
    for leave in leaving.values():
        number = int(leave.sum())
        left = len(leave) - number
        changed |= _keep_last(leave, min(round_to - left if left == 0 else -left % round_to, number))
    return changed


def feature_stays(feeds: Feeds, leaving: dict[str, Bool[Tensor, "_"]]) -> Bool[Tensor, "_"] | None:
    """Which features remain when units leave: those without a source, and those with a source that stays."""
    if not feeds:
        return None
    remaining = {name: ~leaving[name] for name in feeds if name in leaving}
    return receiving(feeds, remaining, len(next(iter(feeds.values()))))
