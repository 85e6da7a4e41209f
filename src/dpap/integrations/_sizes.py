"""The sizes that a network had, to give them back to it."""

from dataclasses import dataclass

import torch
from torch import nn

from dpap.anatomy.hidden_state import reset_state
from dpap.surgery.structure import Structure, modules_of, recount, structure_of
from dpap.surgery.timesteps import BUFFER


@dataclass(frozen=True)
class Sizes:
    """Shapes of a network's parameters and buffers, and the counts of its layers.

    Attributes:
        shapes: by the name in its state_dict.
        layers: counts and settings by the name of the layer.
    """

    shapes: dict[str, tuple[int, ...]]
    layers: Structure

    @classmethod
    def of(cls, network: nn.Module) -> "Sizes":
        """Those of a network as it is now."""
        own = network.state_dict(keep_vars=True)
        shapes = {name: tuple(value.shape) for name, value in own.items() if isinstance(value, torch.Tensor)}
        return cls(shapes, structure_of(network))

    @torch.no_grad()
    def restore(self, network: nn.Module) -> None:
        """Give a network that has become smaller these sizes again; what had shrunk is zero until weights are loaded.

        Raises:
            ValueError: where timesteps of its neurons are silent, for their masks have shrunk too.
        """
        own = network.state_dict(keep_vars=True)
        if any(name.rpartition(".")[2] == BUFFER for name in own.keys() - self.shapes.keys()):
            raise ValueError(
                "these weights are of a larger network than this one has become, and timesteps of its neurons are "
                "silent: build the network anew and load them there"
            )
        reset_state(network)
        for name, tensor in network.state_dict(keep_vars=True).items():
            shape = self.shapes.get(name)
            if shape is not None and tuple(tensor.shape) != shape:
                tensor.grad = None
                tensor.data = tensor.new_zeros(shape)
        for name, module in modules_of(network).items():
            recount(module, self.layers.get(name))
