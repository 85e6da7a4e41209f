"""Compact networks on disk: weights and structure in one safetensors file, nothing that runs code."""

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dpap.anatomy.projections import projection_kind, size_of
from dpap.surgery.timesteps import AXES, BUFFER, silence_timesteps

KEY, FORMAT = "dpap", 1


def save(model: nn.Module, path: str | Path) -> Path:
    """Write a network, compact or not, to one file: written under a temporary name, then renamed.

    Args:
        model: the network, whose state_dict is stored.
        path: of the file; ".safetensors" is usual.

    Returns:
        The path.
    """
    path = Path(path)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in _state(model).items()}
    # one key, for safetensors orders several at random, and equal networks shall give equal files
    metadata = {KEY: json.dumps({"format": FORMAT, "sha256": _fingerprint(tensors)})}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, temporary, metadata=metadata)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def load(path: str | Path, model: nn.Module) -> nn.Module:
    """Shrink a freshly built network to the stored structure and give it the stored weights, in place.

    Args:
        path: a file that `save` wrote.
        model: the network as its constructor builds it; device and precision stay its own.

    Returns:
        The same network.

    Raises:
        FileNotFoundError: where there is no file.
        ValueError: where the file is damaged or of another network; the network is unchanged then.
    """
    path = Path(path)
    stored = _read(path)
    silenced = {name.removesuffix(f".{BUFFER}") for name in stored if name.endswith(f".{BUFFER}")}
    own = _state(model)
    _check_fit(path, stored, own, silenced)
    for name in silenced:
        alive, axes = stored[f"{name}.{BUFFER}"], stored[f"{name}.{AXES}"].tolist()
        module = model.get_submodule(name)
        device = next((tensor.device for tensor in own.values()), torch.device("cpu"))
        silence_timesteps(module, alive.to(device), time_axis=axes[0], feature_axis=axes[1])
    for name, tensor in stored.items():
        if name in own:
            own[name].grad = None
            own[name].data = tensor.to(device=own[name].device, dtype=own[name].dtype)
    for module in model.modules():
        _recount(module)
    return model


def _state(model: nn.Module) -> dict[str, Tensor]:
    """The very tensors of the state_dict, not copies."""
    return {
        name: value for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, Tensor)
    }


def _fingerprint(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"expected a file that dpap.save wrote; there is none at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is damaged or no safetensors file ({error}); save the network again"
        ) from error
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} was not written by this dpap.save: expected format {FORMAT} in its metadata, got "
            f"{metadata.get('format')}"
        )
    if metadata.get("sha256") != _fingerprint(tensors):
        raise ValueError(
            f"{path} was changed after it was saved: its checksum does not fit; save the network again"
        )
    return tensors


def _check_fit(path: Path, stored: dict[str, Tensor], own: dict[str, Tensor], silenced: set[str]) -> None:
    """Say everything that does not fit, at once."""
    extra = {f"{name}.{part}" for name in silenced for part in (BUFFER, AXES)}
    problems = [f"{name}: in the network, not in the file" for name in own.keys() - stored.keys() - extra]
    problems += [f"{name}: in the file, not in the network" for name in stored.keys() - own.keys() - extra]
    for name in stored.keys() & own.keys() - extra:
        small, large = tuple(stored[name].shape), tuple(own[name].shape)
        if len(small) != len(large) or any(new > old for new, old in zip(small, large, strict=True)):
            problems.append(f"{name}: the file has {small}, the network only {large}")
    if problems:
        more = f"\n  and {len(problems) - 12} more" if len(problems) > 12 else ""
        listed = "\n  ".join(sorted(problems)[:12])
        raise ValueError(
            f"{path} is of another network than the one given:\n  {listed}{more}\n"
            "build the network as it was built before it was pruned"
        )


def _recount(module: nn.Module) -> None:
    """Let a module's own counts of units and features follow its tensors."""
    counts: dict[str, int] = {}
    if projection_kind(module) is not None:
        units, features = size_of(module)
        counts = {
            "out_features": units,
            "out_channels": units,
            "in_features": features,
            "in_channels": features,
        }
    else:
        own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        sizes = [len(tensor) for tensor in own if tensor.ndim == 1]
        counts = dict.fromkeys(("num_features", "num_parameters"), sizes[0]) if sizes else {}
    for name, count in counts.items():
        if isinstance(getattr(module, name, None), int):
            setattr(module, name, count)
