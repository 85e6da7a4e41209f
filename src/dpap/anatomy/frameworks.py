"""Neurons and weight layers of other frameworks, found by name, so that none of them has to be installed."""

from typing import NamedTuple

from torch import nn

NEURONS: dict[str, int | str | None] = {
    "spikingjelly.activation_based.neuron.base_node.BaseNode": "step_mode",
    "spikingjelly.activation_based.neuron.base_node.SimpleBaseNode": "step_mode",
    "spikingjelly.activation_based.neuron.dsr.DSRIFNode": "step_mode",
    "spikingjelly.activation_based.neuron.dsr.DSRLIFNode": "step_mode",
    "spikingjelly.activation_based.neuron.lif_variants.GatedLIFNode": "step_mode",
    "spikingjelly.activation_based.neuron.psn.PSN": 0,
    "spikingjelly.activation_based.neuron.psn.MaskedPSN": "step_mode",
    "spikingjelly.activation_based.neuron.psn.SlidingPSN": "step_mode",
    "snntorch._neurons.neurons.SpikingNeuron": None,
    "snntorch._neurons.stateleaky.StateLeaky": 0,
    "sinabs.layers.lif.LIF": 1,
    "sinabs.layers.alif.ALIF": 1,
    # time is folded into the batch
    "sinabs.layers.lif.LIFSqueeze": None,
    "sinabs.layers.iaf.IAFSqueeze": None,
    "sinabs.layers.alif.ALIFSqueeze": None,
}
"""Class of spiking neurons -> axis over which its time runs, None where each call is a timestep; "step_mode" where
its attribute of that name decides."""

RESETS = {
    "spikingjelly.activation_based.base.MemoryModule": "reset",
    "snntorch._neurons.neurons.SpikingNeuron": "reset_mem",
    "sinabs.layers.stateful_layer.StatefulLayer": "reset_states",
}
"""Class of modules with hidden state, neurons or not -> its method that resets it."""

STATES = frozenset(("sinabs.layers.stateful_layer.StatefulLayer",))
"""Class of modules of which all buffers are hidden state, also those that a state_dict stores."""

TRANSPARENT = frozenset(
    (
        "torch.ao.quantization.fake_quantize.FakeQuantizeBase",
        "torch.ao.quantization.observer.ObserverBase",
        "sinabs.layers.exp_leak.ExpLeak",
    )
)
"""Class of modules that observe, round or average values, and pass them on."""


class LayerAxes(NamedTuple):
    """Axes of a weight that count units and features, and the attributes that count them."""

    unit: int
    feature: int
    units: tuple[str, ...]
    features: tuple[str, ...]


LAYERS = {
    "transformers.pytorch_utils.Conv1D": LayerAxes(1, 0, ("nf",), ("nx",)),
    "transformers.modeling_utils.Conv1D": LayerAxes(1, 0, ("nf",), ("nx",)),
    "torch_geometric.nn.dense.linear.Linear": LayerAxes(0, 1, ("out_channels",), ("in_channels",)),
}
"""Class of fully connected layers, with parameters `weight` and `bias` -> its axes."""


def qualified_name(base: type) -> str:
    """The name by which a class is imported from where it is defined."""
    return f"{base.__module__}.{base.__qualname__}"


def step_mode_axis(module: nn.Module) -> int | None:
    """SpikingJelly's time axis: the first in multi-step mode, none in single-step mode."""
    return 0 if getattr(module, "step_mode", "s") == "m" else None
