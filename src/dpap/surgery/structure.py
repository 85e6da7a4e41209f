"""A network besides its tensors: its layers and their settings, to distinguish two networks of equal shapes."""

import inspect
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType
from typing import Any

from torch import nn

from dpap.anatomy.layers import groups_of, is_depthwise, layer_kind, size_of
from dpap.anatomy.neurons import neuron_kind
from dpap.anatomy.recurrent import SIZES, counts_of, flatten, is_recurrent

Structure = dict[str, dict[str, Any]]
"""Path of a layer -> its class, its settings, and its size where it is a weight layer; plain values throughout."""

_SIZES = ("in_features", "out_features", "in_channels", "out_channels", "num_features", "num_parameters")
_OF_TRAINING = ("inplace", "momentum", "p", "dropout")
_OF_SPEED = ("enable_nested_tensor", "mask_check")
_OF_NEURONS = ("tau", "threshold", "v_threshold", "v_reset", "decay_input")
"""Where neurons of others, which list no constants, hold what their equation is of."""
_PLAIN = (bool, int, float, str)


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    """Every module by its path, the same one under each of its names; compiled modules by the names of their own."""
    return {plain_name(name): module for name, module in model.named_modules(remove_duplicate=False)}


def plain_name(name: str) -> str:
    """A name without what `torch.compile` puts into it."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def structure_of(model: nn.Module) -> Structure:
    """The layers of a network: modules without children, weight layers, neurons, and layers of torch with parts.

    Other containers are left out, for they are the user's own and may be renamed.
    """
    return dict(_described("", model))


def differences(stored: Structure, model: nn.Module) -> list[str]:
    """What in a network differs from a stored structure, except for counts of units and features."""
    modules, found = modules_of(model), []
    for path, layer in stored.items():
        module = modules.get(path)
        if module is None:
            found.append(f"{path}: {layer['class']} in the file, not in the network")
            continue
        own = _layer(module)
        if own["class"] != layer["class"]:
            found.append(f"{path}: {layer['class']} in the file, {own['class']} in the network")
            continue
        found += [
            f"{path}: {setting} {value} in the file, {own['settings'][setting]} in the network"
            for setting, value in layer["settings"].items()
            if setting in own["settings"] and own["settings"][setting] != value
        ]
        if "size" in layer and not _groups_fit(layer["size"], module):
            found.append(
                f"{path}: {_grouping(layer['size'])} in the file, {_grouping(own['size'])} in the network"
            )
    # whether a neuron's own parts are described depends on what is registered as a neuron
    with_parts = {path[:place] for path in stored for place, each in enumerate(path) if each == "."}
    for path, layer in structure_of(model).items():
        related = (
            other.startswith(f"{path}." if path else "")
            or (path.startswith(f"{other}.") and other not in with_parts)
            for other in stored
        )
        if path not in stored and not any(related):
            found.append(f"{path}: {layer['class']} in the network, not in the file")
    return found


def recount(module: nn.Module, layer: dict[str, Any] | None) -> None:
    """Let a module's own counts of groups, units and features follow its stored structure and its tensors."""
    counts: dict[str, int] = {}
    kind = layer_kind(module)
    if kind is not None:
        if layer is not None:
            counts["groups"] = layer["size"][2]
            _set_counts(module, counts)
        units, features = size_of(module)
        counts = dict.fromkeys(kind.unit_counts, units) | dict.fromkeys(kind.feature_counts, features)
    elif is_recurrent(module):
        counts = counts_of(module)
        flatten(module)
    else:
        own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        sizes = [len(tensor) for tensor in own if tensor.ndim == 1]
        counts = dict.fromkeys(_SIZES[4:], sizes[0]) if sizes else {}
    _set_counts(module, counts)


def _set_counts(module: nn.Module, counts: dict[str, int]) -> None:
    for name, count in counts.items():
        if isinstance(getattr(module, name, None), int):
            setattr(module, name, count)


def _described(path: str, module: nn.Module) -> Iterator[tuple[str, dict[str, Any]]]:
    if not _has_parts(module):
        yield plain_name(path), _layer(module)
        return
    if _torch_class(module) is not None:
        yield plain_name(path), _layer(module)
    for name, child in module.named_children():
        yield from _described(f"{path}.{name}" if path else name, child)


def _layer(module: nn.Module) -> dict[str, Any]:
    """A module's class, without where it is defined, which may change, and its settings."""
    # what has parts may be renamed
    base = _torch_class(module) if _has_parts(module) else None
    layer: dict[str, Any] = {"class": (base or type(module)).__name__, "settings": {}}
    kind = layer_kind(module)
    sizes = (*_SIZES, *SIZES) if kind is None else (*_SIZES, *kind.unit_counts, *kind.feature_counts)
    for name in (*getattr(module, "__constants__", ()), *_unlisted(module)):
        value = single(getattr(module, name, None))
        left_out = name in (*sizes, *_OF_TRAINING, *_OF_SPEED, "groups") or not hasattr(module, name)
        if not left_out and (value is None or is_plain(value)):
            layer["settings"][name] = value
    if kind is not None:
        layer["size"] = [*size_of(module), groups_of(module)]
    return layer


def _has_parts(module: nn.Module) -> bool:
    known = layer_kind(module) is not None or neuron_kind(module) is not None
    return not known and any(True for _ in module.children())


def _torch_class(module: nn.Module) -> type[nn.Module] | None:
    """The layer of torch.nn that a module is or derives from; None where that is a mere container."""
    base = next(each for each in type(module).__mro__ if each.__module__.startswith("torch.nn.modules."))
    mere = base is nn.Module or base.__module__ == nn.Sequential.__module__
    return None if mere else base


def _unlisted(module: nn.Module) -> Iterator[str]:
    """Names of settings that a module holds and does not list as constants."""
    base = _torch_class(module)
    if base is not None:
        taken = inspect.signature(base.__init__).parameters
        yield from (name for name in taken if name in vars(module) and not name.startswith("_"))
    if neuron_kind(module) is not None:
        yield from (name for name in _OF_NEURONS if name in vars(module))


def single(value: Any) -> Any:
    """One value where all along the axes are equal, as constructors take them; lists, as files hold them.

    Of a function its name.
    """
    if isinstance(value, FunctionType | BuiltinFunctionType):
        return value.__name__
    if not isinstance(value, tuple | list):
        return value
    return value[0] if value and all(part == value[0] for part in value) else list(value)


def is_plain(value: Any) -> bool:
    """Whether a value is one that JSON has, or a list of such."""
    return isinstance(value, _PLAIN) or (
        isinstance(value, list) and all(isinstance(part, _PLAIN) or part is None for part in value)
    )


def _groups_fit(size: list[int], module: nn.Module) -> bool:
    """Whether a layer can have lost units to come to a size: depthwise convolutions lose groups with them."""
    units, features, groups = size
    if not is_depthwise(module):
        return groups == groups_of(module)
    own_units, own_features = size_of(module)
    return groups == features and units * own_features == own_units * features


def _grouping(size: list[int]) -> str:
    units, features, groups = size
    return f"{units} units that read {features} features in {groups} {'group' if groups == 1 else 'groups'}"
