"""Who is alive: units, synapses and neuron-timesteps of every projection, and what can leave physically."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from dpap.anatomy import Wiring
from dpap.anatomy.projections import weight_of
from dpap.anatomy.wiring import Feeds, Reader, receiving


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
            if projection.fate != "whole":
                units[projection.name] = torch.ones(projection.units, dtype=torch.bool, device=device)
            if synapses and projection.synapses:
                shape = (projection.units, projection.features)
                single[projection.name] = torch.ones(shape, dtype=torch.bool, device=device)
            neuron = wiring.neurons[projection.neuron] if projection.neuron else None
            if timesteps and projection.fate != "whole" and neuron is not None and neuron.timesteps > 1:
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
        return receiving(reader.feeds, self.units, reader.features)

    def weights(self, wiring: Wiring) -> dict[str, tuple[int, int]]:
        """Projection -> (living weights, weights) for every projection that can lose any.

        A weight is dead where its synapse, its unit or the source of its feature is.
        """
        counts = {}
        for name, projection in wiring.projections.items():
            features = self.features(projection)
            units = self.units.get(name)
            rows = projection.units if units is None else int(units.sum())
            if name in self.synapses:
                living = self.synapses[name] & features.to(self.synapses[name].device)
                alive = int((living if units is None else living & units[:, None]).sum())
            else:
                alive = rows * int(features.sum())
            if units is not None or any(source in self.units for source in projection.feeds):
                counts[name] = (alive * projection.taps, projection.weights)
        return counts

    def removable(self, wiring: Wiring) -> dict[str, Bool[Tensor, "_"]]:
        """Dead units that can leave: all that is added to them, wherever they are read, is dead and can leave."""
        leaving = {
            name: ~alive.cpu()
            if wiring.projections[name].fate == "prunable"
            else torch.zeros_like(alive.cpu())
            for name, alive in self.units.items()
        }
        changed = True
        while changed:
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
        return leaving


def feature_stays(feeds: Feeds, leaving: dict[str, Bool[Tensor, "_"]]) -> Bool[Tensor, "_"] | None:
    """Which features remain when units leave: those that nobody feeds, or that anybody feeds who stays."""
    if not feeds:
        return None
    remaining = {name: ~gone for name, gone in leaving.items()}
    return receiving(feeds, remaining, len(next(iter(feeds.values()))))
