"""Where the compact network is checked: it must compute what the silenced network computed before the removal.

Both run in evaluation mode, in double precision, on an input on which neurons fire.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dpap.anatomy import Wiring, neuron_kind
from dpap.anatomy.frozen import frozen
from dpap.anatomy.hidden_state import reset_state
from dpap.anatomy.pytrees import Inputs, doubled, float_tensors, is_float, map_floats, run

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
    """Runs a network in evaluation mode and, where possible, double precision, on an input on which neurons fire.

    Args:
        model: the network.
        wiring: its wiring.
        example_inputs: what its forward takes.
        double: whether to compute in double precision, which takes several times as long.
    """

    def __init__(self, model: nn.Module, wiring: Wiring, example_inputs: Inputs, double: bool = True) -> None:
        self.model = model
        self.wiring = wiring
        self.example_inputs = example_inputs
        self.inputs = example_inputs
        self.double = double

    @property
    def tolerance(self) -> float:
        """Largest difference that counts as none, relative to the largest output."""
        if self.double:
            return TOLERANCE[torch.float64]
        return max((TOLERANCE.get(each.dtype, 1e-5) for each in self.model.parameters()), default=1e-5)

    def __enter__(self) -> "EquivalenceCheck":
        self._frozen = frozen(self.model, training_paths=self.wiring.training_paths)
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
            self.inputs = map_floats(self.example_inputs, partial(torch.mul, scale))
            with self._firing() as fired:
                try:
                    outputs = self.outputs()
                except RuntimeError:
                    if not self.double or most >= 0:
                        raise
                    # a network with code that fixes its precision cannot be checked in another
                    self.double = False
                    fired.clear()
                    outputs = self.outputs()
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
        return found

    def outputs(self) -> list[Tensor]:
        """All floating-point outputs, of several timesteps where each forward is one."""
        if not self.double:
            return self._presentation(self.inputs)
        with in_double(self.model):
            return self._presentation(map_floats(self.inputs, doubled))

    def _presentation(self, inputs: Inputs) -> list[Tensor]:
        reset_state(self.model)
        steps = STEPS if self.wiring.stepped else 1
        # a network may return its own state, which the next presentation changes
        return [tensor.clone() for _ in range(steps) for tensor in float_tensors(run(self.model, inputs))]

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
            modules[site.module].register_forward_pre_hook(entering(site.module))
            if neuron.incoming
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
