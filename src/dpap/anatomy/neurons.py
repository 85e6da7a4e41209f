"""Which modules are neurons: what turns the sum of inputs into activity, and over which axis time runs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from operator import methodcaller

from torch import nn

from dpap.anatomy.frameworks import NEURONS, RESETS, TRANSPARENT, qualified_name, step_mode_axis
from dpap.spiking import SpikingNeuron


@dataclass(frozen=True)
class NeuronKind:
    """What staining and recording need of a class of neurons.

    Attributes:
        spikes: whether it emits spikes (a comparison, which no dye passes) rather than a rate.
        time_axis: axis of its output over which time runs, or None where each call is one timestep
            (or where there is no time); a function of the module where that depends on its settings.
        reset: resets the state of such a module; None where it has no state, or a forward resets it itself.
        transparent: whether it passes values on, nearly, but its own forward would spread dye: fake quantisation takes
            its scale from all values.
    """

    spikes: bool
    time_axis: int | Callable[[nn.Module], int | None] | None = None
    reset: Callable[[nn.Module], object] | None = None
    transparent: bool = False

    def time_axis_of(self, module: nn.Module) -> int | None:
        """Time axis of one module of this kind."""
        return self.time_axis(module) if callable(self.time_axis) else self.time_axis


_RATE = NeuronKind(spikes=False)
_REGISTRY: dict[type[nn.Module], NeuronKind] = {
    SpikingNeuron: NeuronKind(spikes=True, time_axis=0),
    **dict.fromkeys(
        (
            nn.ReLU,
            nn.ReLU6,
            nn.LeakyReLU,
            nn.PReLU,
            nn.RReLU,
            nn.ELU,
            nn.SELU,
            nn.CELU,
            nn.GELU,
            nn.SiLU,
            nn.Mish,
            nn.Hardswish,
            nn.Hardtanh,
            nn.Tanh,
            nn.Softsign,
            nn.Sigmoid,
            nn.Hardsigmoid,
            nn.Softplus,
        ),
        _RATE,
    ),
}


_RESETS = ("reset_mem", "reset_state", "reset")
"""Methods that reset the state of neurons, the most specific first."""


def register_neuron(
    neuron: type[nn.Module],
    *,
    spikes: bool,
    time_axis: int | Callable[[nn.Module], int | None] | None = None,
    reset: Callable[[nn.Module], object] | None = None,
) -> None:
    """Register a class of modules, and its subclasses, as neurons.

    Neurons work unit by unit: a module that connects units by weights of its own does not count as one.

    Args:
        neuron: the class.
        spikes: whether it emits spikes; of several outputs the first is the spikes.
        time_axis: axis of its output over which time runs; None where each call is one timestep; a function of
            the module where that depends on its settings.
        reset: resets a module's state to that at the start of a presentation; without it, its method
            `reset_mem`, `reset_state` or `reset` does, if there is one.

    Example:
        >>> import torch, dpap
        >>> from torch import nn
        >>> class Threshold(nn.Module):
        ...     def forward(self, x):
        ...         return (x >= 1).float()
        >>> dpap.register_neuron(Threshold, spikes=True)
        >>> model = nn.Sequential(nn.Linear(4, 8), Threshold(), nn.Linear(8, 2))
        >>> dpap.find_wiring(model, (torch.rand(3, 4),)).layers["0"].prunability
        'prunable'
    """
    if not (isinstance(neuron, type) and issubclass(neuron, nn.Module)):
        raise TypeError(f"register_neuron expects a class of torch.nn.Module; got {neuron!r}")
    if reset is None and spikes:
        method = next((name for name in _RESETS if callable(getattr(neuron, name, None))), None)
        reset = None if method is None else methodcaller(method)
    _REGISTRY[neuron] = NeuronKind(spikes=spikes, time_axis=time_axis, reset=reset)


def neuron_kind(module: nn.Module) -> NeuronKind | None:
    """The kind of neuron that a module is, or None; the nearest registered base class decides."""
    for base in type(module).__mro__:
        kind = _REGISTRY.get(base) or _of_framework(base)
        if kind is not None:
            return None if kind.spikes and _connects_units(module) else kind
    return None


def reset_module(module: nn.Module) -> None:
    """Reset a module's own hidden state, where a method for it is known."""
    kind = neuron_kind(module)
    if kind is not None and kind.reset is not None:
        kind.reset(module)
        return
    for base in type(module).__mro__:
        method = RESETS.get(qualified_name(base))
        if method is not None and callable(getattr(module, method, None)):
            getattr(module, method)()
            return


@cache
def _of_framework(base: type) -> NeuronKind | None:
    name = qualified_name(base)
    if name in TRANSPARENT:
        return NeuronKind(spikes=False, transparent=True)
    if name not in NEURONS:
        return None
    axis = NEURONS[name]
    return NeuronKind(spikes=True, time_axis=step_mode_axis if isinstance(axis, str) else axis)


def _connects_units(module: nn.Module) -> bool:
    """Whether it holds layers with weights, as recurrent neurons do."""
    inner = (part for child in module.children() for part in child.parameters())
    return any(parameter.numel() > 1 for parameter in inner)
