"""Parameters with as many values as a weight layer has units that stand in a module around it, as a graph
convolution's bias does, which is added after the aggregation.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from dpap.anatomy.hidden_state import accept, reset_state
from dpap.anatomy.layers import layer_kind


@dataclass(frozen=True)
class ParametersAround:
    """Such parameters of one module, each with the axis that counts the values; `layer`: that has as many units."""

    module: nn.Module
    layer: str
    tensors: dict[str, int]


def parameters_around(model: nn.Module, units: Mapping[str, int]) -> dict[str, list[ParametersAround]]:
    """Path of a module -> its parameters, for each of some weight layers in it of which no nearer module has such.

    Args:
        model: the network.
        units: weight layer -> number of its units.
    """
    uses: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    modules = dict(model.named_modules(remove_duplicate=False))
    found: dict[str, list[ParametersAround]] = {}
    for name, count in units.items():
        path = name
        while path:
            path = path.rpartition(".")[0]
            module = modules.get(path)
            if module is None or layer_kind(module) is not None:
                continue
            tensors = {
                key: list(parameter.shape).index(count)
                for key, parameter in module.named_parameters(recurse=False)
                if parameter.numel() == count > 1 and count in parameter.shape and uses[id(parameter)] == 1
            }
            if tensors:
                found.setdefault(path, []).append(ParametersAround(module, name, tensors))
                break
    return found


@contextmanager
def silent_around(model: nn.Module, units: Mapping[str, int]) -> Iterator[None]:
    """Such parameters are zero meanwhile: whether they are silent with their units is seen on trial."""
    every = [
        each.module.get_parameter(key)
        for one in parameters_around(model, units).values()
        for each in one
        for key in each.tensors
    ]
    # a forward may have written into them, which is not to be kept
    reset_state(model)
    before = [parameter.data for parameter in every]
    try:
        for parameter in every:
            parameter.data = torch.zeros_like(parameter.data)
            accept(parameter)
        yield
    finally:
        for parameter, data in zip(reversed(every), reversed(before), strict=True):
            parameter.data = data
            accept(parameter)
