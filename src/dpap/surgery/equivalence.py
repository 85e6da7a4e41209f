"""Where the compact network is checked: it must compute what the silenced network computed before the removal.

Both run in evaluation mode, in double precision, on an input on which neurons fire.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dpap.anatomy import Wiring, neuron_kind
from dpap.anatomy.carried import handed_back, with_states_of
from dpap.anatomy.frozen import frozen
from dpap.anatomy.hidden_state import reset_state
from dpap.anatomy.pytrees import (
    Inputs,
    doubled,
    examples_of,
    float_tensors,
    in_precision,
    is_float,
    keeping,
    map_floats,
    precision_of,
    run,
)
from dpap.anatomy.recurrent import flatten
from dpap.anatomy.staining.dye import Site
from dpap.surgery.further import further_inputs

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-1, torch.float16: 1e-2}
"""Largest accepted difference between silent and compact output, relative to the largest output."""


STEPS = 4
"""Timesteps that are compared where a forward is a single one."""


class CompactionError(RuntimeError):
    """The compact network would not compute what the silenced one computes; nothing was changed.

    Example:
        >>> import torch, dpap
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
        >>> config = dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=1, synapses=False)
        >>> pruner = dpap.Pruner(model, torch.rand(4, 8), config=config)
        >>> model(torch.rand(64, 8)).square().sum().backward()  # training, of which gradients are observed
        >>> report = pruner.step()
        >>> _ = nn.init.constant_(model[0].bias, -1e6)  # no neuron fires: nothing to compare by
        >>> try:
        ...     pruner.compact()
        ... except dpap.CompactionError:
        ...     model[0].out_features
        32
    """


class NothingFires(CompactionError):
    """Removal cannot be checked on a network that is silent."""


class EquivalenceCheck:
    """Runs a network in evaluation mode and, where possible, double precision, on an input on which neurons fire, and
    on a further one like it that took no part in staining.

    Args:
        model: the network.
        wiring: its wiring.
        example_inputs: what its forward takes; all of several examples are compared.
        double: whether to compute in double precision, which takes several times as long.
        within: whether the network is frozen already.

    Attributes:
        inputs: what both networks are compared on.
        leaving: key of a reader -> indices of its features that will remain: states of the others are zero.
    """

    def __init__(
        self,
        model: nn.Module,
        wiring: Wiring,
        example_inputs: Inputs,
        double: bool = True,
        within: bool = False,
    ) -> None:
        self.model = model
        self.wiring = wiring
        # a network may have been given another precision since
        self.example_inputs = in_precision(example_inputs, wiring.precision, precision_of(model))
        self.inputs = self.example_inputs
        self._further: Inputs | None = None
        self.leaving: dict[str | Site, Tensor] = {}
        self.double = double
        self._frozen: AbstractContextManager[None] = (
            nullcontext() if within else frozen(model, training_paths=wiring.training_paths, rest=wiring.rest)
        )

    @property
    def tolerance(self) -> float:
        """Largest difference that counts as none, relative to the largest output."""
        if self.double:
            return TOLERANCE[torch.float64]
        return max((TOLERANCE.get(each.dtype, 1e-5) for each in self.model.parameters()), default=1e-5)

    def __enter__(self) -> "EquivalenceCheck":
        self._frozen.__enter__()
        return self

    def __exit__(self, *reason: Any) -> None:
        self._frozen.__exit__(*reason)

    def reference(self) -> list[Tensor]:
        """Outputs on the input on which the most layers fire: the example, or a multiple of it.

        Raises:
            NothingFires: where no neuron fires on any of them.
        """
        names = {site.module for site in self.wiring.neurons}
        most, best, found = -1, self.example_inputs, []
        for scale in (1.0, 4.0, 16.0, 64.0):
            self.inputs = self._own_states(map_floats(self.example_inputs, partial(torch.mul, scale)))
            with self._firing() as fired:
                try:
                    outputs = self._run(self.inputs)
                except RuntimeError:
                    if not self.double or most >= 0:
                        raise
                    # a network with code that fixes its precision cannot be checked in another
                    self.double = False
                    fired.clear()
                    outputs = self._run(self.inputs)
            if len(fired) > most:
                most, best, found = len(fired), self.inputs, outputs
            if most == len(names):
                break
        if names and not most:
            raise NothingFires(
                "no neuron fires on the example inputs, even 64 times as strong, so removal cannot be checked and "
                "nothing was removed; give Pruner example inputs like those of training"
            )
        self.inputs = best
        return found + self._further_reference()

    def _further_reference(self) -> list[Tensor]:
        """Outputs on a further input; nothing where the network does not take it, as shuffled values may be invalid."""
        further = self._own_states(further_inputs(self.inputs))
        try:
            found = self._run(further)
        except Exception:
            return []
        if not all(bool(tensor.isfinite().all()) for tensor in found):
            return []
        self._further = further
        return found

    def difference(self, before: list[Tensor]) -> float:
        """Largest difference of the outputs now from those that `reference` gave, relative to the largest of each.

        These are all floating-point outputs that keep their width, of several timesteps where each forward is one;
        the further input is left out where the example differs.
        """
        now = self._run(self.inputs)
        if self._further is None or len(now) > len(before):
            return largest_difference(before, now)
        difference = largest_difference(before[: len(now)], now)
        if difference <= self.tolerance:
            difference = max(difference, largest_difference(before[len(now) :], self._run(self._further)))
        return difference

    def _run(self, inputs: Inputs) -> list[Tensor]:
        if not self.double:
            return self._presentation(inputs)
        with in_double(self.model):
            return self._presentation(map_floats(inputs, doubled))

    def _presentation(self, inputs: Inputs) -> list[Tensor]:
        states = self.wiring.states
        steps = STEPS if self.wiring.stepped or self.wiring.carries or states else 1
        found: list[Tensor] = []
        for example in examples_of(inputs):
            reset_state(self.model)
            for _ in range(steps):
                returned = run(self.model, example)
                # a network may return its own state, which the next presentation changes
                found += [tensor.clone() for tensor in float_tensors(keeping(self.wiring.outputs, returned))]
                if states:
                    example = handed_back(example, returned, [state.carried for state in states])
        return found

    def _own_states(self, inputs: Inputs) -> Inputs:
        """Inputs with the states of the example; those of units that leave are silent, as the units are."""
        places = [state.carried for state in self.wiring.states]
        if not places:
            return inputs
        given = self.wiring.with_states(self.example_inputs, self.leaving, silent=True)
        pairs = zip(examples_of(inputs), examples_of(given), strict=True)
        return [with_states_of(one, other, places) for one, other in pairs]

    def follow(self, kept: dict[str | Site, Tensor]) -> None:
        """Let states among the inputs follow a removal, after which these features are kept."""
        self.inputs = self.wiring.with_states(self.inputs, kept)
        if self._further is not None:
            self._further = self.wiring.with_states(self._further, kept)

    @contextmanager
    def _firing(self) -> Iterator[set[str]]:
        """Names of the neurons, or of the layers that functional activations enter, that are active meanwhile."""
        fired: set[str] = set()
        modules = dict(self.model.named_modules())

        def note(name: str, activity: Any) -> None:
            if any(bool((tensor != 0).any()) for tensor in float_tensors(activity)):
                fired.add(name)

        def entering(name: str) -> Callable[..., None]:
            return lambda module, args: note(name, args)

        def emitted(name: str) -> Callable[..., None]:
            return lambda module, args, output: note(name, output)

        handles = [
            entry.register_forward_pre_hook(entering(site.module))
            if neuron.incoming and (entry := self.wiring.layers[site.module].entry) is not None
            else modules[site.module].register_forward_hook(emitted(site.module))
            for site, neuron in self.wiring.neurons.items()
            if site.call == 0
        ]
        try:
            yield fired
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def in_double(model: nn.Module) -> Iterator[None]:
    """The network in double precision, in the same tensors, and afterwards as it was.

    Spikes are exact in any precision; snnTorch emits them in single precision whatever comes in.
    """
    floating = [tensor for tensor in (*model.parameters(), *model.buffers()) if is_float(tensor)]
    old = [tensor.data for tensor in floating]
    gradients = [tensor.grad for tensor in floating]
    for tensor in floating:
        tensor.grad = None
        tensor.data = doubled(tensor.data)
    for module in model.modules():
        flatten(module)
    spiking = [module for module in model.modules() if (kind := neuron_kind(module)) and kind.spikes]
    handles = [module.register_forward_hook(_doubled) for module in spiking]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for tensor, data, gradient in zip(floating, old, gradients, strict=True):
            tensor.data = data
            tensor.grad = gradient


def _doubled(module: nn.Module, args: Any, output: Any) -> Any:
    return map_floats(output, doubled)


def largest_difference(before: list[Tensor], after: list[Tensor]) -> float:
    """Largest difference relative to the largest output; infinite where shapes differ or NaN appears."""
    if [tensor.shape for tensor in before] != [tensor.shape for tensor in after]:
        return float("inf")
    worst = 0.0
    for old, new in zip(before, after, strict=True):
        if old.numel() == 0:
            continue
        scale = max(float(old.abs().max()), torch.finfo(old.dtype).tiny)
        difference = float((new - old).abs().max()) / scale
        worst = max(worst, difference if difference == difference else float("inf"))
    return worst
