"""Give a freshly built network the tensors of a smaller one: it shrinks to them, in place."""

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dpap.anatomy.hidden_state import make_persistent, preserved_state, reset_state, state_buffers
from dpap.anatomy.layers import layer_kind
from dpap.surgery.changing import changes_tensors
from dpap.surgery.coherence import contradictions, groups_left
from dpap.surgery.pruned import check_unpruned
from dpap.surgery.structure import differences, modules_of, plain_name, recount
from dpap.surgery.timesteps import AXES, BUFFER, silence_timesteps

Network = TypeVar("Network", bound=nn.Module)
EXTRA = "_extra_state"
"""Under this name a state_dict holds what a module adds to its tensors."""
SHOWN = 12
"""So many differences are listed when a state does not fit."""
LINE = 300
"""So many characters of each."""


def load_state(model: Network, state: Mapping[str, Any]) -> Network:
    """Shrink a freshly built network to the sizes of a compact network's state_dict, and load it, in place.

    For a state that came without `dpap.save`: from a checkpoint of one's own, or of a framework. Parameters stay the
    same objects, so that an optimizer may have been created before; gradients are dropped.

    Args:
        model: the network as its constructor builds it; device and precision stay its own.
        state: what `state_dict()` of the compact network returned.

    Returns:
        The same network, its hidden state reset.

    Raises:
        ValueError: where the state is of another network; the network is unchanged then.
        TypeError: where its state_dict holds more than tensors and extra state, as that of a quantised network.

    Example:
        >>> import torch, dpap
        >>> from torch import nn
        >>> small = nn.Sequential(nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> dense = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
        >>> dpap.load_state(dense, small.state_dict())[0]
        Linear(in_features=8, out_features=3, bias=True)
    """
    stored = {plain_name(name): value for name, value in state.items() if isinstance(value, Tensor)}
    extra = {plain_name(name): value for name, value in state.items() if not isinstance(value, Tensor)}
    own, _ = tensors_of(model, stored)
    # a state keeps a shared tensor under each of its names
    tied = {
        name: first
        for name, first in tied_names(own).items()
        if name in stored and first in stored and torch.equal(stored[name], stored[first])
    }
    fit(model, stored, {"layers": None, "tied": tied, "extra": extra}, "this state", "state")
    return model


@changes_tensors
def fit(
    model: nn.Module, stored: Mapping[str, Tensor], about: dict[str, Any], origin: str, place: str
) -> None:
    """Give a network stored tensors, and the counts of units and features that follow from them.

    Args:
        model: the network as its constructor builds it.
        stored: tensors by name.
        about: "layers", the structure where that was stored, else None; "tied" names; "extra" state of modules.
        origin: what errors call where all this comes from; `place` in a word.

    Raises:
        ValueError: where it is of another network; the network is unchanged then.
    """
    check_unpruned(
        model,
        "network.load_state_dict(state), which lets it follow, and the pruner's load_state_dict, or "
        "pruner.detach() before",
    )
    modules = modules_of(model)
    silenced = {
        name.removesuffix(f".{BUFFER}")
        for name in stored
        if name.endswith(f".{BUFFER}") and f"{name.removesuffix(BUFFER)}{AXES}" in stored
    }
    with preserved_state(model):
        own, extra = tensors_of(model, stored)
        _check_fit(about, stored, model, own, extra, silenced & modules.keys(), origin, place)
    layers = {
        name: {"size": [0, 0, groups_left(module, tuple(stored[weight].shape))]}
        for name, module in modules.items()
        if (weight := _weight_name(name, module)) is not None and weight in stored
    }
    fitting = {
        name: stored[name].to(
            device=tensor.device, dtype=tensor.dtype, copy=True, memory_format=_memory_format(tensor)
        )
        for name, tensor in own.items()
    }
    _set_extra(modules, extra, {name: about["extra"].get(name, stored.get(name)) for name in extra}, place)
    for name in _left_out(model).keys() & stored.keys():
        owner, _, buffer = name.rpartition(".")
        make_persistent(modules[owner], buffer)
    reset_state(model)
    own, _ = tensors_of(model)
    for name in silenced:
        alive, axes = stored[f"{name}.{BUFFER}"], stored[f"{name}.{AXES}"].tolist()
        device = next((tensor.device for tensor in own.values()), torch.device("cpu"))
        silence_timesteps(modules[name], alive.to(device), time_axis=axes[0], feature_axis=axes[1])
    for name, tensor in fitting.items():
        own[name].grad = None
        own[name].data = tensor
    for name, module in modules.items():
        recount(module, layers.get(name))
        _shrink_state(module)


def _weight_name(path: str, module: nn.Module) -> str | None:
    kind = layer_kind(module)
    return None if kind is None else f"{path}.{kind.weight}" if path else kind.weight


def tensors_of(model: nn.Module, stored: Collection[str] = ()) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The very tensors of the state_dict, not copies, and what modules add to them.

    Args:
        model: the network.
        stored: names in a stored state: buffers of the network that are among them count too, though its state_dict
            leaves them out. A removal that cuts such a buffer lets the state_dict hold it.

    Raises:
        TypeError: where the state_dict holds something else.
        ValueError: where a lazy layer has no shape yet.
    """
    tensors, extra = {}, {}
    for name, value in model.state_dict(keep_vars=True).items():
        if name.rpartition(".")[2] == EXTRA:
            extra[plain_name(name)] = value
        elif is_lazy(value):
            raise ValueError(f"{name} has no shape yet: run the network once, on an input, before")
        elif isinstance(value, Tensor):
            tensors[plain_name(name)] = value
        else:
            raise TypeError(
                f"expected a state_dict of tensors, and plain values that get_extra_state returns; its entry {name} is "
                f"a {type(value).__name__}, which would be lost: let get_extra_state return it, or, of a quantised "
                "network, take the one before it was quantised"
            )
    left_out = _left_out(model)
    return tensors | {name: left_out[name] for name in stored if name in left_out}, extra


def _left_out(model: nn.Module) -> dict[str, Tensor]:
    """Buffers that the state_dict leaves out, by name."""
    return {
        f"{path}.{name}" if path else name: buffer
        for path, module in modules_of(model).items()
        for name, buffer in module._buffers.items()
        if buffer is not None and name in module._non_persistent_buffers_set
    }


def tied_names(tensors: dict[str, Tensor]) -> dict[str, str]:
    """Names of tensors that have another name too -> the first of their names."""
    first: dict[int, str] = {}
    return {
        name: first[id(tensors[name])]
        for name in sorted(tensors)
        if first.setdefault(id(tensors[name]), name) != name
    }


def _check_fit(
    about: dict[str, Any],
    stored: Mapping[str, Tensor],
    model: nn.Module,
    own: dict[str, Tensor],
    extra: dict[str, Any],
    silenced: set[str],
    origin: str,
    place: str,
) -> None:
    """Raise with everything that does not fit, at once."""
    masks = {f"{name}.{part}" for name in silenced for part in (BUFFER, AXES)}
    # the extra state of a module may be a tensor, but a tensor is nothing else
    missing = (own.keys() - stored.keys()) | (extra.keys() - stored.keys() - about["extra"].keys())
    foreign = (stored.keys() - own.keys() - extra.keys()) | (about["extra"].keys() - extra.keys())
    problems = [f"{name}: in the network, not in the {place}" for name in missing - masks]
    problems += [f"{name}: in the {place}, not in the network" for name in foreign - masks]
    for name in stored.keys() & own.keys() - masks:
        problems += _misfits(name, stored[name], own[name], place)
    tied = tied_names(own)
    for name in (tied.keys() | about["tied"].keys()) & own.keys():
        here, there = (names.get(name, "none") for names in (tied, about["tied"]))
        if here != there:
            problems.append(f"{name}: the same tensor as {there} in the {place}, as {here} in the network")
    problems.sort()
    if about["layers"] is not None:
        problems += differences(about["layers"], model)
    if problems:
        raise ValueError(
            f"{origin} is of another network than the one given:\n  {_listed(problems)}\n"
            "build the network as it was built before it was pruned"
        )
    problems = list(contradictions(model, stored, about["layers"]))
    if problems:
        raise ValueError(
            f"{origin} is not of a network that dpap made smaller, for its tensors do not fit each other:\n  "
            f"{_listed(problems)}\nsave the network again, and load no file of an origin that you do not trust"
        )


def _listed(problems: list[str]) -> str:
    """The first of them, a line each, as names in a file may be anything."""
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return "\n  ".join([*map(printable, problems[:SHOWN]), *more])


def printable(text: str) -> str:
    """Text on one line of at most `LINE` characters, of which those that no terminal shows are spelled out."""
    return escaped(text if len(text) <= LINE else f"{text[:LINE]}...")


def escaped(text: str) -> str:
    """Text on one line, of which characters that no terminal shows are spelled out."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _misfits(name: str, stored: Tensor, own: Tensor, place: str) -> list[str]:
    small, large = tuple(stored.shape), tuple(own.shape)
    if len(small) != len(large) or any(new > old for new, old in zip(small, large, strict=True)):
        return [f"{name}: the {place} has {small}, the network only {large}"]
    if stored.dtype != own.dtype and not (stored.is_floating_point() and own.is_floating_point()):
        return [f"{name}: {stored.dtype} in the {place}, {own.dtype} in the network"]
    return []


def _memory_format(tensor: Tensor) -> torch.memory_format:
    for layout, dimensions in ((torch.channels_last, 4), (torch.channels_last_3d, 5)):
        if (
            tensor.ndim == dimensions
            and not tensor.is_contiguous()
            and tensor.is_contiguous(memory_format=layout)
        ):
            return layout
    return torch.preserve_format


def _set_extra(modules: dict[str, nn.Module], old: dict[str, Any], new: dict[str, Any], place: str) -> None:
    """Give modules their extra state; where one refuses it, all get their own back."""
    given: list[str] = []
    try:
        for name, value in new.items():
            given.append(name)
            modules[name.rpartition(".")[0]].set_extra_state(value)
    except Exception as error:
        for name in given:
            modules[name.rpartition(".")[0]].set_extra_state(old[name])
        raise ValueError(
            f"the network refuses the extra state {given[-1]} of the {place}: {error}"
        ) from error


def _shrink_state(module: nn.Module) -> None:
    """Let a neuron's reset state fit any number of units: one value, where all are equal."""
    for name in state_buffers(module):
        state = module._buffers[name]
        if state is not None and state.numel() and bool((state == state.flatten()[0]).all()):
            module._buffers[name] = state.flatten()[0].clone()
