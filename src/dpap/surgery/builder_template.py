"""Builds the compact network whose weights lie beside this file: plain PyTorch, by torch and safetensors alone.

    model = load()         # of the factory below, or of layers in turn
    model = load(build)    # build() returns the network as it was before it was made smaller

Each layer gets the widths that are written in the JSON file, then the weights are loaded, strictly.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from functools import reduce
from importlib import import_module
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

WEIGHTS = "model.safetensors"
WIDTHS = "model_widths.json"
CHECKSUM = ""  # of both
FACTORY = None  # "module:callable", which returns the network as it was before
ARGUMENTS: dict[str, Any] = {}  # that it is called with

# of the name, not of what a link such as those of hubs' caches leads to
HERE = Path(__file__).absolute().parent


def load(build: Callable[[], nn.Module] | None = None, device: str = "cpu") -> nn.Module:
    """The compact network, in evaluation mode.

    Args:
        build: returns the network as it was before it was made smaller; by default the factory is called.
        device: where its tensors lie.
    """
    weights = (HERE / WEIGHTS).read_bytes()
    try:
        widths = json.loads((HERE / WIDTHS).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{HERE / WIDTHS} was damaged ({error}): save the network again") from error
    if checksum(weights, widths) != CHECKSUM:
        raise ValueError(
            f"{WEIGHTS} and {WIDTHS} in {HERE} were not written together with this file, or were damaged since: save "
            "the network again"
        )
    model = original(widths) if build is None else build()
    shrink(model, widths["layers"])
    state = load_file(HERE / WEIGHTS)
    state.update({name: state[first] for name, first in widths["tied"].items()})
    model.load_state_dict({**state, **widths["extra"]}, strict=True)
    return model.to(device).eval()


def checksum(weights: bytes, widths: dict[str, Any]) -> str:
    """SHA-256 of the content of the weights' file and of the values in the JSON file."""
    return hashlib.sha256(weights + json.dumps(widths, sort_keys=True).encode()).hexdigest()


def original(widths: dict[str, Any]) -> nn.Module:
    """The network before: what the factory returns, or layers in turn."""
    if FACTORY is not None:
        module, _, name = str(FACTORY).partition(":")
        model: nn.Module = reduce(getattr, name.split("."), import_module(module))(**ARGUMENTS)
        return model
    if widths["in_turn"] is None:
        raise TypeError(
            "these files name no factory: load(build), with what builds the network before it shrinks"
        )
    return in_turn(widths["in_turn"])


def in_turn(layer: dict[str, Any]) -> nn.Module:
    """A module of torch.nn, or several in turn."""
    if "children" in layer:
        return nn.Sequential(OrderedDict((name, in_turn(child)) for name, child in layer["children"]))
    given = {name: tuple(x) if isinstance(x, list) else x for name, x in layer["arguments"].items()}
    made: nn.Module = getattr(nn, layer["class"])(**given)
    return made


def shrink(model: nn.Module, layers: dict[str, Any]) -> None:
    """Give the layers of a network their widths; tensors of another size are left empty, and stay the same objects."""
    modules = dict(model.named_modules(remove_duplicate=False))
    for path, layer in layers.items():
        module = modules.get(path)
        if module is None or type(module).__name__ != layer["class"]:
            raise ValueError(f"{path}: expected a {layer['class']}, got {module}: build another network")
        for name, value in layer["settings"].items():
            if hasattr(module, name) and _single(getattr(module, name)) != value:
                raise ValueError(
                    f"{path}: expected {name} {value}, got {getattr(module, name)}: build another network"
                )
        for name, size in layer["sizes"].items():
            if getattr(module, name) != size:
                setattr(module, name, size)
        for name, (shape, kind) in layer["tensors"].items():
            tensor: Any = getattr(module, name, None)
            dtype = getattr(torch, kind)
            if not _holds(tensor, shape):
                raise ValueError(
                    f"{path}.{name}: expected at least {shape}, got {tensor}: build another network"
                )
            if list(tensor.shape) != shape or tensor.dtype != dtype:
                tensor.data = torch.empty(shape, dtype=dtype, device=tensor.device)
            module._non_persistent_buffers_set.discard(name)  # its values are loaded
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()


def _holds(tensor: Any, shape: list[int]) -> bool:
    if not isinstance(tensor, torch.Tensor) or tensor.ndim != len(shape):
        return False
    return all(size <= own for size, own in zip(shape, tensor.shape, strict=True))


def _single(value: Any) -> Any:
    """One value where all along the axes are equal, as constructors take them; of a function its name."""
    if isinstance(value, (FunctionType, BuiltinFunctionType)):
        return value.__name__
    if not isinstance(value, (tuple, list)):
        return value
    return value[0] if value and all(part == value[0] for part in value) else list(value)
