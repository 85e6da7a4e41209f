"""Compact networks on disk: weights and structure in one safetensors file, nothing that runs code."""

import hashlib
import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_safetensors
from torch import Tensor, nn

from dpap.anatomy.hidden_state import preserved_state
from dpap.files import write_bytes, write_together
from dpap.surgery.changing import changes_tensors
from dpap.surgery.fitting import Network, fit, printable, tensors_of, tied_names
from dpap.surgery.header import check_header, parsed
from dpap.surgery.plain import check_plain, is_json, plain_contents
from dpap.surgery.pruned import settle
from dpap.surgery.sparse import mispacked, pack, unpack
from dpap.surgery.structure import structure_of

KEY = "dpap"
DENSE, SPARSE = 2, 3
"""Formats: of files that hold each tensor as it is, and of those that hold some by bits and values."""


def save(
    model: nn.Module,
    path: str | Path,
    format: Literal["dpap", "plain"] = "dpap",
    build: str | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Path:
    """Write a network, compact or not, to one file, whole or not at all.

    Hidden state, such as membranes, is left out: the network is stored in its reset state. A weight of which many
    synapses died is stored as a bit for each entry and the values of those that are not zero, where that is smaller.

    Args:
        model: the network; its state_dict is stored, with the settings of its layers.
        path: of the file; ".safetensors" is usual.
        format: "dpap", or "plain" for those who have no dpap: every tensor as it is, so that the file is a state dict,
            and beside it NAME_widths.json, layer by layer, and NAME_builder.py, whose `load()` returns the network by
            torch and safetensors alone. `dpap.load` reads the file too.
        build: of "plain", "module:callable", what returns the network as it was before, such as
            "torchvision.models:resnet18"; without it the script's `load` takes that as its argument, or needs none
            where the network is modules of torch.nn in turn.
        arguments: by name, that the callable is called with; plain values.

    Returns:
        The path.

    Raises:
        TypeError: where a module's extra state is more than tensors and plain values, or the state_dict holds other
            entries that are no tensors, as that of a quantised network.
        ValueError: where a lazy layer has no shape yet, or a "plain" network does not run without dpap.
        OSError: where the file cannot be written.

    Example:
        >>> import torch, dpap
        >>> from torch import nn
        >>> small = nn.Sequential(nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> path = dpap.save(small, "small.safetensors")
        >>> path.name
        'small.safetensors'
    """
    path = Path(path)
    if format not in ("dpap", "plain"):
        raise ValueError(f'format must be "dpap" or "plain"; got {format!r}')
    if format == "dpap" and (build is not None or arguments):
        raise ValueError('build and arguments are for format="plain"; dpap.load takes the network itself')
    settle(model)
    files = check_plain(model, path, build, arguments) if format == "plain" else None
    with preserved_state(model):
        own, extra = tensors_of(model)
        tied = tied_names(own)
        tensors = {
            name: tensor.detach().cpu().contiguous().clone()
            for name, tensor in own.items()
            if name not in tied
        }
    for name, value in list(extra.items()):
        if isinstance(value, Tensor):
            tensors[name] = extra.pop(name).detach().cpu().contiguous().clone()
        elif not is_json(value):
            raise TypeError(
                f"a file holds tensors and plain values (numbers, text, lists, dictionaries by text); the extra "
                f"state {name} is another {type(value).__name__}: let get_extra_state return plain values"
            )
    shapes: dict[str, list[int]] = {}
    if files is None:
        tensors, shapes = pack(tensors, [name for name in own if name not in tied])
    about = {"format": DENSE, "layers": structure_of(model), "tied": tied, "extra": extra}
    if shapes:
        about |= {"format": SPARSE, "sparse": shapes}
    # one key, for safetensors orders several at random, and equal networks must give equal files
    metadata = {KEY: json.dumps(about | {"sha256": _fingerprint(about, tensors)})}
    path.parent.mkdir(parents=True, exist_ok=True)
    content = as_safetensors(tensors, metadata=metadata)
    if files is None:
        write_bytes(path, content)
    else:
        with preserved_state(model):
            contents = plain_contents(files, model, about, content, build, arguments)
        write_together(contents)
    return path


@changes_tensors
def load(path: str | Path, model: Network) -> Network:
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
    with preserved_state(model):
        own, _ = tensors_of(model, stored.keys() | about.get("sparse", {}).keys())
    tensors = unpack(stored, about.get("sparse", {}), own)
    tensors |= {name: tensors[first] for name, first in about["tied"].items()}
    fit(model, tensors, about, str(path), "file")
    return model


def _fingerprint(about: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description of a network in a file, and the tensors that the file holds, each once."""
    if not path.is_file():
        raise FileNotFoundError(f"expected a file that dpap.save wrote; there is none at {path}")
    try:
        check_header(path)
        with safe_open(path, framework="pt") as file:
            about = parsed((file.metadata() or {}).get(KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        checksum = about.pop("sha256", None) if isinstance(about, dict) else None
        fits = checksum == _fingerprint(about, tensors)
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError, OverflowError) as error:
        raise ValueError(
            f"{path} is damaged or no safetensors file ({printable(str(error))}); save the network again"
        ) from error
    found = about.get("format") if isinstance(about, dict) else None
    if found not in (DENSE, SPARSE):
        raise ValueError(
            f"{path} was not written by this dpap.save: expected format {DENSE} or {SPARSE} in its metadata, got "
            f"{printable(str(found))}; read it with the version that wrote it, or save the network again"
        )
    if not fits:
        raise ValueError(
            f"{path} was changed after it was saved: its checksum does not fit; save the network again"
        )
    problem = mispacked(tensors, about.get("sparse", {}))
    problem = problem or _misshapen(about, tensors.keys() | about.get("sparse", {}).keys())
    if problem is not None:
        raise ValueError(
            f"{path} holds no description of a network: {printable(problem)}; save the network again"
        )
    return about, tensors


def _misshapen(about: dict[str, Any], tensors: Set[str]) -> str | None:
    """What in a description is not as `save` writes it."""
    for part in ("layers", "tied", "extra"):
        if not isinstance(about.get(part), dict):
            return f"expected an object as {part!r}, got {about.get(part)!r}"
    for path, layer in about["layers"].items():
        if not (
            isinstance(layer, dict)
            and isinstance(layer.get("class"), str)
            and isinstance(layer.get("settings"), dict)
        ):
            return f"expected class and settings of the layer {path!r}, got {layer!r}"
        size = layer.get("size", [1, 1, 1])
        whole = isinstance(size, list) and all(type(count) is int for count in size)
        if not (whole and len(size) == 3 and min(size) >= 0 and size[2] > 0):
            return f"expected numbers of units, features and groups of the layer {path!r}, got {size!r}"
    for name, first in about["tied"].items():
        if name in tensors or not isinstance(first, str) or first not in tensors:
            return f"expected {name!r} to be the same as another tensor of the file, got {first!r}"
    for name in about["extra"]:
        if name in tensors:
            return f"{name!r} is both a tensor and extra state"
    return None
