"""Compact networks on disk: weights and structure in one safetensors file, nothing that runs code."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dpap.anatomy.hidden_state import preserved_state, reset_state, state_buffers
from dpap.surgery.structure import differences, modules_of, plain_name, recount, structure_of
from dpap.surgery.timesteps import AXES, BUFFER, silence_timesteps

KEY, FORMAT = "dpap", 2
EXTRA = "_extra_state"
"""Under this name a state_dict holds what a module adds to its tensors."""
SHOWN = 12
"""So many differences are listed when a file does not fit."""


def save(model: nn.Module, path: str | Path) -> Path:
    """Write a network, compact or not, to one file: written under a temporary name, then renamed.

    Hidden state, such as membranes, is left out: the network is stored in its reset state.

    Args:
        model: the network; its state_dict is stored, with the settings of its layers.
        path: of the file; ".safetensors" is usual.

    Returns:
        The path.

    Raises:
        TypeError: where a module's extra state is more than tensors and plain values.
        ValueError: where a lazy layer has no shape yet.

    Example:
        >>> import torch, dpap
        >>> from torch import nn
        >>> small = nn.Sequential(nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> path = dpap.save(small, "small.safetensors")
        >>> path.name
        'small.safetensors'
    """
    path = Path(path)
    with preserved_state(model):
        own, extra = _state(model)
        tied = _tied(own)
        tensors = {
            name: tensor.detach().cpu().contiguous().clone()
            for name, tensor in own.items()
            if name not in tied
        }
    for name, value in list(extra.items()):
        if isinstance(value, Tensor):
            tensors[name] = extra.pop(name).detach().cpu().contiguous().clone()
        elif not _is_plain(value):
            raise TypeError(
                f"a file holds tensors and plain values (numbers, text, lists, dictionaries by text); the extra "
                f"state {name} is another {type(value).__name__}: let get_extra_state return plain values"
            )
    about = {"format": FORMAT, "layers": structure_of(model), "tied": tied, "extra": extra}
    # one key, for safetensors orders several at random, and equal networks must give equal files
    metadata = {KEY: json.dumps(about | {"sha256": _fingerprint(about, tensors)})}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, temporary, metadata=metadata)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


@torch.no_grad()
def load(path: str | Path, model: nn.Module) -> nn.Module:
    """Shrink a freshly built network to the stored structure and give it the stored weights, in place.

    Parameters stay the same objects, so that an optimizer may have been created before; gradients are dropped.

    Args:
        path: a file that `save` wrote.
        model: the network as its constructor builds it; device and precision stay its own.

    Returns:
        The same network, its state reset.

    Raises:
        FileNotFoundError: where there is no file.
        ValueError: where the file is damaged or of another network; the network is unchanged then.

    Example:
        >>> import torch, dpap
        >>> from torch import nn
        >>> small = nn.Sequential(nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> path = dpap.save(small, "small.safetensors")
        >>> dense = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
        >>> dpap.load(path, dense)[0]
        Linear(in_features=8, out_features=3, bias=True)
    """
    path = Path(path)
    about, stored = _read(path)
    modules = modules_of(model)
    silenced = {
        name.removesuffix(f".{BUFFER}")
        for name in stored
        if name.endswith(f".{BUFFER}") and f"{name.removesuffix(BUFFER)}{AXES}" in stored
    }
    with preserved_state(model):
        own, extra = _state(model)
        _check_fit(path, about, stored, model, own, extra, silenced & modules.keys())
    fitting = {
        name: stored[name].to(device=tensor.device, dtype=tensor.dtype, memory_format=_memory_format(tensor))
        for name, tensor in own.items()
    }
    _set_extra(modules, extra, {name: about["extra"].get(name, stored.get(name)) for name in extra})
    reset_state(model)
    own, _ = _state(model)
    for name in silenced:
        alive, axes = stored[f"{name}.{BUFFER}"], stored[f"{name}.{AXES}"].tolist()
        device = next((tensor.device for tensor in own.values()), torch.device("cpu"))
        silence_timesteps(modules[name], alive.to(device), time_axis=axes[0], feature_axis=axes[1])
    for name, tensor in fitting.items():
        own[name].grad = None
        own[name].data = tensor
    for name, module in modules.items():
        recount(module, about["layers"].get(name))
        _shrink_state(module)
    return model


def _state(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The very tensors of the state_dict, not copies, and what modules add to them."""
    tensors, extra = {}, {}
    for name, value in model.state_dict(keep_vars=True).items():
        if name.rpartition(".")[2] == EXTRA:
            extra[plain_name(name)] = value
        elif is_lazy(value):
            raise ValueError(f"{name} has no shape yet: run the network once, on an input, before")
        elif isinstance(value, Tensor):
            tensors[plain_name(name)] = value
    return tensors, extra


def _tied(tensors: dict[str, Tensor]) -> dict[str, str]:
    """Names of tensors that have another name too -> the first of their names."""
    first: dict[int, str] = {}
    return {
        name: first[id(tensors[name])]
        for name in sorted(tensors)
        if first.setdefault(id(tensors[name]), name) != name
    }


def _is_plain(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False


def _fingerprint(about: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description of a network in a file, and its tensors by each of their names."""
    if not path.is_file():
        raise FileNotFoundError(f"expected a file that dpap.save wrote; there is none at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"{path} is damaged or no safetensors file ({error}); save the network again"
        ) from error
    found = about.get("format") if isinstance(about, dict) else None
    if found != FORMAT:
        raise ValueError(
            f"{path} was not written by this dpap.save: expected format {FORMAT} in its metadata, got {found}; "
            "read it with the version that wrote it, or save the network again"
        )
    if about.pop("sha256", None) != _fingerprint(about, tensors):
        raise ValueError(
            f"{path} was changed after it was saved: its checksum does not fit; save the network again"
        )
    return about, tensors | {name: tensors[first] for name, first in about["tied"].items()}


def _check_fit(
    path: Path,
    about: dict[str, Any],
    stored: dict[str, Tensor],
    model: nn.Module,
    own: dict[str, Tensor],
    extra: dict[str, Any],
    silenced: set[str],
) -> None:
    """Raise with everything that does not fit, at once."""
    masks = {f"{name}.{part}" for name in silenced for part in (BUFFER, AXES)}
    network, file = own.keys() | extra.keys(), stored.keys() | about["extra"].keys()
    problems = [f"{name}: in the network, not in the file" for name in network - file - masks]
    problems += [f"{name}: in the file, not in the network" for name in file - network - masks]
    for name in stored.keys() & own.keys() - masks:
        problems += _misfits(name, stored[name], own[name])
    tied = _tied(own)
    for name in (tied.keys() | about["tied"].keys()) & own.keys():
        here, there = (names.get(name, "none") for names in (tied, about["tied"]))
        if here != there:
            problems.append(f"{name}: the same tensor as {there} in the file, as {here} in the network")
    problems = sorted(problems) + differences(about["layers"], model)
    if problems:
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        listed = "\n  ".join(problems[:SHOWN])
        raise ValueError(
            f"{path} is of another network than the one given:\n  {listed}{more}\n"
            "build the network as it was built before it was pruned"
        )


def _misfits(name: str, stored: Tensor, own: Tensor) -> list[str]:
    small, large = tuple(stored.shape), tuple(own.shape)
    if len(small) != len(large) or any(new > old for new, old in zip(small, large, strict=True)):
        return [f"{name}: the file has {small}, the network only {large}"]
    if stored.dtype != own.dtype and not (stored.is_floating_point() and own.is_floating_point()):
        return [f"{name}: {stored.dtype} in the file, {own.dtype} in the network"]
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


def _set_extra(modules: dict[str, nn.Module], old: dict[str, Any], new: dict[str, Any]) -> None:
    """Give modules their extra state; where one refuses it, all get their own back."""
    given: list[str] = []
    try:
        for name, value in new.items():
            given.append(name)
            modules[name.rpartition(".")[0]].set_extra_state(value)
    except Exception as error:
        for name in given:
            modules[name.rpartition(".")[0]].set_extra_state(old[name])
        raise ValueError(f"the network refuses the extra state {given[-1]} of the file: {error}") from error


def _shrink_state(module: nn.Module) -> None:
    """Let a neuron's reset state fit any number of units: one value, where all are equal."""
    for name in state_buffers(module):
        state = module._buffers[name]
        if state is not None and state.numel() and bool((state == state.flatten()[0]).all()):
            module._buffers[name] = state.flatten()[0].clone()
