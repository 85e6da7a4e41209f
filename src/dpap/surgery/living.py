"""Who is alive: units, synapses and neuron-timesteps of every projection, and what can leave physically."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from dpap.anatomy import Wiring
from dpap.anatomy.codes import MIXED
from dpap.anatomy.projections import weight_of
from dpap.anatomy.wiring import Feeds, Projection, Reader, receiving


@dataclass
class Living:
    """What is alive, by projection; True lives.

    Attributes:
        units: of every projection whose units may die.
        synapses: of every fully connected projection whose synapses may die.
        timesteps: [T, units] of every projection whose neuron-timesteps may die.
    """

    units: dict[str, Bool[Tensor, "_"]]
    synapses: dict[str, Bool[Tensor, "_ _"]]
    timesteps: dict[str, Bool[Tensor, "_ _"]]

    @classmethod
    def at_birth(cls, wiring: Wiring, *, synapses: bool, timesteps: bool) -> "Living":
        """Everything alive."""
        units, single, times = {}, {}, {}
        for projection in wiring.projections.values():
            device = weight_of(projection.module).device
            if projection.dies:
                units[projection.name] = torch.ones(projection.units, dtype=torch.bool, device=device)
            if synapses and projection.synapses:
                shape = (projection.units, projection.features)
                single[projection.name] = torch.ones(shape, dtype=torch.bool, device=device)
            neuron = wiring.neurons[projection.neuron] if projection.neuron else None
            if timesteps and projection.dies and neuron is not None and neuron.timesteps > 1:
                shape = (neuron.timesteps, projection.units)
                times[projection.name] = torch.ones(shape, dtype=torch.bool, device=device)
        return cls(units, single, times)

    def tensors(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Each kind by its name."""
        yield "units", self.units
        yield "synapses", self.synapses
        yield "timesteps", self.timesteps

    def copy(self) -> "Living":
        """An independent copy."""
        return Living(*({name: alive.clone() for name, alive in kind.items()} for _, kind in self.tensors()))

    def keep(self, name: str, units: Tensor | None, features: Tensor | None) -> None:
        """Drop all but the given units and features of a projection; None keeps all of them."""
        if units is not None:
            self.units[name] = self.units[name][units]
            if name in self.timesteps:
                self.timesteps[name] = self.timesteps[name][:, units]
        if name in self.synapses:
            synapses = self.synapses[name] if units is None else self.synapses[name][units]
            self.synapses[name] = synapses if features is None else synapses[:, features]

    def features(self, reader: Reader) -> Bool[Tensor, "_"]:
        """Which features of a part of the network still receive something."""
        return receiving(reader.feeds, self.units, reader.features, reader.gates)

    def useful(self, wiring: Wiring) -> dict[str, Bool[Tensor, "_"]]:
        """Projection -> which of its living units some layer receives: one that only scales the dead, say, is not."""
        heard = {
            name: torch.zeros(projection.units, dtype=torch.bool)
            for name, projection in wiring.projections.items()
        }
        for reader in wiring.projections.values():
            read = self.features(reader) & self._read(reader)
            for source, unit in reader.feeds.items():
                if source in heard:
                    heard[source][unit[read & (unit >= 0)]] = True
                    heard[source] |= bool((read & (unit == MIXED)).any())
        useful = {}
        for name, projection in wiring.projections.items():
            alive = self.units.get(name)
            living = torch.ones(projection.units, dtype=torch.bool) if alive is None else alive.cpu()
            useful[name] = living & heard[name] if projection.leaves else living
        return useful

    def _read(self, reader: Projection) -> Bool[Tensor, "_"]:
        """Which features of a projection any living unit of their group reads."""
        units = self.units.get(reader.name)
        if units is None or reader.groups == 1:
            return torch.ones(reader.features, dtype=torch.bool)
        alive = units.cpu().view(reader.groups, -1).any(1)
        return alive.repeat_interleave(reader.features // reader.groups)

    def weights(self, wiring: Wiring) -> dict[str, tuple[int, int]]:
        """Projection -> (living weights, weights) for every projection of which any can die.

        A weight is dead where its synapse, its unit or the source of its feature is.
        """
        counts = {}
        useful = self.useful(wiring)
        for name, projection in wiring.projections.items():
            if (
                name not in self.units
                and not any(source in self.units for source in projection.feeds)
                and projection.fate != "follows"
            ):
                continue
            if projection.fixed:
                continue
            features, units = self.features(projection), useful[name]
            if name in self.synapses:
                living = self.synapses[name].cpu() & features & units[:, None]
                alive = int(living.count_nonzero())
            else:
                in_group = features.view(projection.groups, -1).sum(1)
                alive = int((units.view(projection.groups, -1).sum(1) * in_group).sum())
            counts[name] = (alive * projection.taps, projection.weights)
        return counts

    def removable(self, wiring: Wiring, round_to: int = 1) -> dict[str, Bool[Tensor, "_"]]:
        """Units that can leave: dead or useless, as is all that is added to them wherever they are read.

        Grouped convolutions lose as many units, and as many features, in every group.

        Args:
            wiring: of the network.
            round_to: widths that remain are multiples of it where possible; the dead stay for that as zeros.
        """
        useful = self.useful(wiring)
        leaving = {
            name: ~useful[name] if projection.leaves else torch.zeros(projection.units, dtype=torch.bool)
            for name, projection in wiring.projections.items()
        }
        while any(
            [_hold_joined(wiring, leaving), _hold_groups(wiring, leaving), _hold_widths(leaving, round_to)]
        ):
            pass
        return leaving


def _hold_joined(wiring: Wiring, leaving: dict[str, Bool[Tensor, "_"]]) -> bool:
    """Keep units that feed a feature which stays; whether there were any."""
    changed = False
    for feeds in (reader.feeds for reader in wiring.readers()):
        stays = feature_stays(feeds, leaving)
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


def _hold_groups(wiring: Wiring, leaving: dict[str, Bool[Tensor, "_"]]) -> bool:
    """Keep units until as many units and features leave every group of a grouped convolution."""
    changed = False
    for name, projection in wiring.projections.items():
        if projection.groups == 1:
            continue
        changed |= _even(leaving[name], projection.groups, leaving[name])
        stays = feature_stays(projection.feeds, leaving)
        if stays is None:
            continue
        leave = ~stays
        if _even(leave, projection.groups, leave):
            held = ~stays & ~leave
            for source, unit in projection.feeds.items():
                if source in leaving:
                    leaving[source][unit[held & (unit >= 0)]] = False
            changed = True
    return changed


def _even(leave: Bool[Tensor, "_"], groups: int, out: Bool[Tensor, "_"]) -> bool:
    """Let no group lose more than any other: the first of each leave; whether that changed anything."""
    grouped = leave.view(groups, -1)
    number = int(grouped.sum(1).min())
    first = grouped & (grouped.cumsum(1) <= number)
    changed = bool((first != grouped).any())
    out.copy_(first.flatten())
    return changed


def _hold_widths(leaving: dict[str, Bool[Tensor, "_"]], round_to: int) -> bool:
    """Keep units until every width is a multiple, and not nothing; whether that changed anything."""
    changed = False
    for leave in leaving.values():
        number = int(leave.sum())
        left = len(leave) - number
        excess = min(round_to - left if left == 0 else -left % round_to, number)
        if excess:
            leave[leave.nonzero().flatten()[-excess:]] = False
            changed = True
    return changed


def feature_stays(feeds: Feeds, leaving: dict[str, Bool[Tensor, "_"]]) -> Bool[Tensor, "_"] | None:
    """Which features remain when units leave: those that nobody feeds, or that anybody feeds who stays."""
    if not feeds:
        return None
    remaining = {name: ~gone for name, gone in leaving.items()}
    return receiving(feeds, remaining, len(next(iter(feeds.values()))))
