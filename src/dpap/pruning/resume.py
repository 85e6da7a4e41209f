"""What of the dense network is left, and how a network comes to the structure that a state was saved with."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dpap.anatomy import WeightLayer, Wiring
from dpap.anatomy.layers import gates_of, is_depthwise, owner_of
from dpap.pruning.state_form import ADVICE, NO_STATE, check_counts, check_dict, check_index
from dpap.pruning.wrappers import renew, wrappers_of
from dpap.surgery import Masks
from dpap.surgery.compact import what_remains
from dpap.surgery.copies import Copies
from dpap.surgery.known_optimizers import KnownOptimizers
from dpap.surgery.optimizer import loaded_before
from dpap.surgery.slicing import Kept, keep_only
from dpap.surgery.timesteps import AXES, BUFFER, silence_timesteps

FRESH = "build network, optimizer and pruner anew and load the state into these"


class Structure:
    """The units of the dense network that are left.

    Args:
        model: the network.
        wiring: of it.
        masks: nothing is pruned.

    Attributes:
        units: of the dense network, by layer.
        weights: likewise, of every layer of which any weight can die.
        index: layer -> the dense network's number of each unit that is left.
        awaited: whether the network took the sizes of its own state, which does not say which units these are: the
            pruner's state, which does, has to follow.
    """

    def __init__(self, model: nn.Module, wiring: Wiring, masks: Masks) -> None:
        self._model = model
        self.units = {name: layer.units for name, layer in wiring.layers.items()}
        self.weights = {name: weights for name, (_, weights) in masks.weights(wiring).items()}
        self.index = {name: torch.arange(units) for name, units in self.units.items()}
        self.awaited = False
        self._wiring = wiring
        self._dense = [
            (dict(reader.feeds), dict(reader.gates), reader.features) for reader in wiring.readers()
        ]
        self._found_units = dict(self.units)
        self._left_out = _left_out(wiring)

    def of_dense(self, name: str, values: Tensor, alive: Tensor) -> list[float | None]:
        """What each unit of a layer has, in the order of the dense network; None of what is dead or was removed."""
        every: list[float | None] = [None] * self.units[name]
        for index, value, stays in zip(
            self.index[name].tolist(), values.tolist(), alive.tolist(), strict=True
        ):
            every[index] = value if stays else None
        return every

    def keep(self, kept: Kept) -> None:
        """Follow a removal."""
        for name, units in kept.units.items():
            self.index[name] = self.index[name][units]

    def state_dict(self) -> dict[str, Any]:
        """Copies, as plain tensors and numbers."""
        return {
            "initial_units": dict(self.units),
            "initial_weights": dict(self.weights),
            "original_index": {name: index.clone() for name, index in self.index.items()},
        }

    def check_intact(self) -> None:
        """Check that it is known which units are left, and that the network still has the modules that have them.

        Raises:
            RuntimeError: where the pruner's state has to be loaded first, or a module was replaced.
        """
        there = {id(module) for module in self._model.modules()}
        wiring = self._wiring
        modules = {name: layer.module for name, layer in wiring.layers.items()}
        modules |= {name: attachment.module for name, attachment in wiring.attachments.items()}
        for name, module in modules.items():
            if id(owner_of(module)) not in there:
                raise RuntimeError(
                    f"{name} is not the module any more that it was when Pruner was made: replace parts of a network "
                    "before, or call detach() and make another Pruner, with an optimizer that has the new parameters"
                )
        if self.awaited:
            raise RuntimeError(
                "the network's state was loaded, which made the network smaller, and does not say which units are "
                "left and what else is dead: load the pruner's state of the same moment too, "
                "pruner.load_state_dict(...); without one, call dpap.load_state(model, state) on a freshly built "
                "network and make the Pruner after that"
            )

    def leading_to(self, state: dict[str, Any]) -> Kept:
        """What remains of the network as it is now when it takes the structure of a pruner's state.

        Raises:
            ValueError: where it cannot.
        """
        self._check(state)
        stored: dict[str, Tensor] = state["original_index"]
        sizes = {name: len(index) for name, index in self.index.items()}
        if {name: len(index) for name, index in stored.items()} == sizes and (
            self.awaited or self._adopts(state)
        ):
            return Kept({}, {})
        if state["initial_units"] != self.units:
            raise ValueError(
                f"this state is of a network with units {state['initial_units']}; this network has "
                f"{self.units}: {self._remedy(state['initial_units'])}"
            )
        leaving = {}
        for name, index in stored.items():
            place = {unit: position for position, unit in enumerate(self.index[name].tolist())}
            missing = [unit for unit in index.tolist() if unit not in place]
            if missing or (self.awaited and len(index) != len(place)):
                raise ValueError(
                    f"this state holds {len(missing) or len(index)} units of {name} that were removed from this "
                    f"network, or are not those of the network's state that was loaded: {FRESH}, into a pruner of the "
                    "freshly built network first"
                )
            leaving[name] = torch.ones(self._wiring.layers[name].units, dtype=torch.bool)
            leaving[name][[place[unit] for unit in index.tolist()]] = False
        return what_remains(self._wiring, leaving)

    def take(self, state: dict[str, Any]) -> None:
        """Take over what a pruner's state says of a network of the present sizes."""
        awaited, self.awaited = self.awaited, False
        self.index = {name: index.clone() for name, index in state["original_index"].items()}
        if self._adopts(state):
            self.units, self.weights = dict(state["initial_units"]), dict(state["initial_weights"])
        elif awaited:
            self._renumber()

    def smaller(self, stored: Mapping[str, Tensor]) -> Kept:
        """What remains of the network when it takes the sizes of its own state; which units these are, is open.

        Raises:
            RuntimeError: where the state is of the network before something was removed.
        """
        leaving = {}
        for name, layer in self._wiring.layers.items():
            units = _stored_units(layer, stored.get(f"{name}.{layer.kind.weight}"))
            if units is None or units == layer.units:
                continue
            if layer.units < units <= self.units[name]:
                raise RuntimeError(
                    f"this state has {units} units of {name}, the network {layer.units}, for some were removed since "
                    f"it was saved, and they do not come back: {FRESH}"
                )
            if not layer.removable or units > layer.units or units % layer.groups:
                return Kept({}, {})  # of another network, as torch says in its own words
            leaving[name] = torch.zeros(layer.units, dtype=torch.bool)
            leaving[name].view(layer.groups, -1)[:, units // layer.groups :] = True
        return what_remains(self._wiring, leaving)

    def _remedy(self, stored: Mapping[str, int]) -> str:
        """What to do where a state is of a network with other units."""
        rows = {
            name: count * gates_of(self._wiring.layers[name].module) for name, count in self.units.items()
        }
        if stored == rows:
            return "each row of a fused layer was a unit when it was saved: go on with the dpap that saved it"
        return "build the network that the state was saved with"

    def _check(self, state: dict[str, Any]) -> None:
        """Check that a state says which units of a dense network are left.

        Raises:
            ValueError: where it does not.
        """
        index, units = state["original_index"], state["initial_units"]
        for name, part in (("original_index", index), ("initial_units", units)):
            check_dict(part, name)
        if index.keys() != units.keys():
            raise ValueError(
                f"{NO_STATE}, for original_index and initial_units are of other layers: {ADVICE}"
            )
        for name, numbers in index.items():
            check_index(numbers, units[name], f"original_index, {name}")
        if "initial_weights" in state:
            check_counts(state["initial_weights"], "initial_weights")
            if not any(state["initial_weights"].values()):
                raise ValueError(f"{NO_STATE}, for by initial_weights there was nothing to prune: {ADVICE}")

    def complete(self, network: nn.Module, state: dict[str, Any], prefix: str) -> None:
        """Let a state of an earlier version, which lacks buffers that were cut, leave them as they are."""
        for name, tensor in self._cut(network).items():
            state.setdefault(prefix + name, tensor)

    def missing(self, stored: Mapping[str, Tensor], network: nn.Module) -> list[str]:
        """Buffers that were cut and that a state of an earlier version lacks."""
        return [f"{name}: not in the state" for name in self._cut(network) if name not in stored]

    def _cut(self, network: nn.Module) -> dict[str, Tensor]:
        """Buffers that only stand in the state_dict since they were cut, under each of their names."""
        own = network.state_dict(keep_vars=True) if self._left_out else {}
        cut = {id(own[name]) for name in self._left_out if name in own}
        return {name: tensor for name, tensor in own.items() if id(tensor) in cut}

    def _adopts(self, state: dict[str, Any]) -> bool:
        """Whether the network was compact when its pruner was made, and the state tells what it was before."""
        whole = all(len(index) == self._found_units[name] for name, index in self.index.items())
        return (
            whole
            and state["initial_units"] != self._found_units
            and state["initial_units"].keys() == self._found_units.keys()
            and "initial_weights" in state
        )

    def _renumber(self) -> None:
        """Number units and features of the wiring anew, from those of the dense network."""
        leaving = {name: torch.ones(units, dtype=torch.bool) for name, units in self.units.items()}
        for (feeds, gates, features), reader in zip(self._dense, self._wiring.readers(), strict=True):
            reader.feeds, reader.gates, reader.features = dict(feeds), dict(gates), features
        for name, layer in self._wiring.layers.items():
            layer.units = self.units[name]
            leaving[name][self.index[name]] = False
        kept = what_remains(self._wiring, leaving)
        self._wiring.keep(kept.units, kept.features)


def take_sizes(
    structure: Structure,
    network: nn.Module,
    state: Mapping[str, Tensor],
    prefix: str,
    slice_to: Callable[[Kept], Callable[[], None]],
) -> Kept:
    """Let a network take the sizes of a state that is loaded into it, where it is smaller; returns what remains.

    Args:
        structure: of the network.
        network: that the state is loaded into.
        state: that is loaded; the names of the network begin with `prefix`.
        prefix: of these names.
        slice_to: slices the network and all that follows it, and returns a function that undoes it.

    Raises:
        RuntimeError: where the state does not fit even then; everything is put back.
    """
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    kept = structure.smaller(own)
    if not kept.everything:
        undo = slice_to(kept)
        problems = misfits(network, own) + structure.missing(own, network)
        if problems:
            undo()
            raise RuntimeError(
                "this state is of a smaller network, and its sizes do not say which units are left: load the pruner's "
                f"state first, pruner.load_state_dict(...), or {FRESH}; {problems[0]}"
            )
        structure.awaited = True
    return kept


def _left_out(wiring: Wiring) -> set[str]:
    """Buffers that belong to units, and that a state_dict leaves out until they are cut."""
    parts = [(name, layer.module, [*layer.further]) for name, layer in wiring.layers.items()]
    parts += [(name, each.module, [*each.tensors]) for name, each in wiring.attachments.items()]
    found = set()
    for name, module, tensors in parts:
        if not tensors:
            continue
        stored = module.state_dict(prefix=f"{name}." if name else "")
        found |= {path for tensor in tensors if (path := f"{name}.{tensor}".lstrip(".")) not in stored}
    return found


def misfits(model: nn.Module, stored: Mapping[str, Tensor]) -> list[str]:
    """Tensors of a state that have another shape in the network."""
    return [
        f"{name}: {tuple(stored[name].shape)} in the state, {tuple(tensor.shape)} in the network"
        for name, tensor in model.state_dict().items()
        if name in stored and isinstance(tensor, Tensor) and stored[name].shape != tensor.shape
    ]


def match_timesteps(model: nn.Module, state: dict[str, Any], prefix: str) -> None:
    """Let network and state both have the masks of timesteps that either has: a mask that is not said stays."""
    for name, module in model.named_modules():
        path = f"{prefix}{name}." if name else prefix
        alive, axes = state.get(path + BUFFER), state.get(path + AXES)
        if BUFFER in module._buffers:
            if alive is None:
                state[path + BUFFER] = module.get_buffer(BUFFER).clone()
                state[path + AXES] = module.get_buffer(AXES).clone()
        elif alive is not None and axes is not None:
            device = next((each.device for each in model.parameters()), alive.device)
            time_axis, feature_axis = axes.tolist()
            silence_timesteps(module, alive.to(device), time_axis, feature_axis)


def _stored_units(layer: WeightLayer, weight: Tensor | None) -> int | None:
    """How many units a layer has whose weight is that of a state; None where that cannot be told."""
    kind = layer.kind
    if weight is None or weight.ndim < 2 or is_depthwise(layer.module):
        return None
    rows = weight.shape[kind.unit_axis] * (layer.groups if kind.unit_axis == 1 else 1)
    return rows // gates_of(layer.module)


def slice_all(
    model: nn.Module, wiring: Wiring, kept: Kept, optimizers: KnownOptimizers, copies: Copies
) -> Callable[[], None]:
    """Slice network, optimizers and copies to a saved structure; returns a function that undoes it."""
    undo: list[Callable[[], None]] = []

    def undo_all() -> None:
        for step in reversed(undo):
            step()
        renew(wrappers_of(model, *copies.models))

    try:
        with loaded_before(optimizers):
            undo.append(keep_only(model, wiring, kept, optimizers))
            undo.append(copies.keep_only(kept))
    except BaseException:
        undo_all()
        raise
    renew(wrappers_of(model, *copies.models))
    return undo_all
