"""Which modules are neurons: what turns the sum of inputs into activity, and over which axis time runs."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from dpap.spiking import SpikingNeuron


@dataclass(frozen=True)
class NeuronKind:
    """What the anatomy must know about a class of neurons.

    Attributes:
        spikes: whether it emits spikes (a comparison, which no dye passes) rather than a rate.
        time_axis: axis of its output over which time runs, or None where each call is one timestep
            (or where there is no time); a function of the module where that depends on its settings.
    """

    spikes: bool
    time_axis: int | Callable[[nn.Module], int | None] | None = None

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


def register_neuron(
    neuron: type[nn.Module],
    *,
    spikes: bool,
    time_axis: int | Callable[[nn.Module], int | None] | None = None,
) -> None:
    """Make a class of modules, and its subclasses, known as neurons.

    Args:
        neuron: the class.
        spikes: whether it emits spikes.
        time_axis: axis of its output over which time runs; None where each call is one timestep.
    """
    if not (isinstance(neuron, type) and issubclass(neuron, nn.Module)):
        raise TypeError(f"register_neuron expects a class of torch.nn.Module; got {neuron!r}")
    _REGISTRY[neuron] = NeuronKind(spikes=spikes, time_axis=time_axis)


def neuron_kind(module: nn.Module) -> NeuronKind | None:
    """The kind of neuron that a module is, or None; the nearest registered base class decides."""
    for base in type(module).__mro__:
        if base in _REGISTRY:
            return _REGISTRY[base]
    return None
