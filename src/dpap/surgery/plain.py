"""Compact networks for those who have no dpap: a state dict, a JSON of widths, and a script that puts them together."""

import inspect
import json
import re
import unicodedata
from ast import literal_eval
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from dpap.anatomy.hidden_state import sizes_of
from dpap.surgery import builder_template
from dpap.surgery.structure import Structure, is_plain, modules_of, single
from dpap.surgery.timesteps import BUFFER

KEY, FORMAT = "dpap_widths", 1
MARK = str(builder_template.__doc__).partition("\n")[0]
"""In every script that is written here."""
FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
INITIAL = ("init", "device", "dtype")
"""Arguments of constructors that only say what tensors are like at first: they are loaded."""
HOOKS = ("_forward_hooks", "_forward_pre_hooks")


class PlainFiles(NamedTuple):
    """Where they lie."""

    weights: Path
    widths: Path
    builder: Path


def plain_files(path: Path) -> PlainFiles:
    """The files of a network whose weights have that path; the script can be imported by its name."""
    # Python looks names up as NFKC makes them
    stem = "".join(
        each if f"_{each}".isidentifier() else "_" for each in unicodedata.normalize("NFKC", path.stem)
    )
    if not f"{stem}_".isidentifier():  # such as 98_builder
        stem = f"_{stem}"
    return PlainFiles(path, path.with_name(f"{stem}_widths.json"), path.with_name(f"{stem}_builder.py"))


def not_plain(model: nn.Module) -> str | None:
    """Why a network needs dpap wherever it runs; None where it does not."""
    for path, module in modules_of(model).items():
        if BUFFER in module._buffers:
            return (
                f"timesteps of {path} are silenced, by a hook of dpap's; export_onnx writes them, or prune without "
                "timestep_target"
            )
        if _of_dpap(module) and _substitute(module) is None:
            return (
                f"{path or 'the network'} is a {type(module).__name__}, which is code of dpap; export_onnx or "
                "export_nir writes what it computes"
            )
    return None


def check_plain(
    model: nn.Module, path: Path, build: str | None, arguments: Mapping[str, Any] | None
) -> PlainFiles:
    """Where the files of a network will lie.

    Raises:
        ValueError: where the network needs dpap, or the factory has no such name.
        TypeError: where the arguments of the factory are no plain values.
        FileExistsError: where another file would be replaced, or the script of another network.
    """
    why = not_plain(model)
    if why is not None:
        raise ValueError(f"this network does not run without dpap: {why}")
    if build is not None and not FACTORY.fullmatch(build):
        raise ValueError(f'build names what builds the network as "module:callable"; got {build!r}')
    if build is None and arguments:
        raise ValueError("arguments are for the factory that build names; got arguments and no build")
    if not is_json(dict(arguments or {})):
        raise TypeError(f"arguments of the factory must be plain values, as JSON has them; got {arguments!r}")
    files = plain_files(path)
    for file, own in ((files.widths, f'"{KEY}"'), (files.builder, MARK)):
        if file.exists() and own not in file.read_text(encoding="utf-8", errors="replace"):
            raise FileExistsError(
                f"{file} is not of dpap, and would be replaced: save under another name than {path}"
            )
    other = _weights_of(files.builder)
    if other is not None and other != path.name and path.with_name(other).exists():
        raise FileExistsError(
            f"{files.builder} builds the network of {path.with_name(other)}, and would be replaced: save {path.name} "
            "under a name that differs from that one in letters or digits"
        )
    return files


def _weights_of(builder: Path) -> str | None:
    """The name of the file whose network a script builds."""
    if not builder.exists():
        return None
    named = re.search(r"(?m)^WEIGHTS = (.*)$", builder.read_text(encoding="utf-8", errors="replace"))
    try:
        return None if named is None else str(literal_eval(named[1]))
    except (ValueError, SyntaxError):  # a damaged script
        return None


def plain_contents(
    files: PlainFiles,
    model: nn.Module,
    about: dict[str, Any],
    weights: bytes,
    build: str | None,
    arguments: Mapping[str, Any] | None,
) -> dict[Path, bytes]:
    """What each of the files holds.

    Args:
        files: where.
        model: the network, its state reset.
        about: its description, as in the weights' file.
        weights: content of that file.
        build, arguments: of the factory.
    """
    model = modules_of(model)[""]  # compiled or not
    layers = _in_turn(model)
    widths = {
        KEY: FORMAT,
        "weights": files.weights.name,
        "layers": _widths(model, about["layers"]),
        "tied": about["tied"],
        "extra": about["extra"],
        "in_turn": layers if layers is not None and _is_same(layers, model) else None,
    }
    script = inspect.getsource(builder_template)
    for name, value in (
        ("WEIGHTS", files.weights.name),
        ("WIDTHS", files.widths.name),
        ("CHECKSUM", builder_template.checksum(weights, json.loads(_lines(widths)))),
        ("FACTORY", build),
        ("ARGUMENTS: dict[str, Any]", dict(arguments or {})),
    ):
        line = f"{name} = {value!r}"
        script = re.sub(rf"(?m)^{re.escape(name)} = [^#\n]*?(?=  #|$)", lambda found: line, script, count=1)  # noqa: B023
    return {
        files.weights: weights,
        files.widths: _lines(widths).encode(),
        files.builder: script.encode(),
    }


def _lines(widths: dict[str, Any]) -> str:
    """JSON with a line for each layer, for people read it too."""
    layers = {name: json.dumps(layer, ensure_ascii=False) for name, layer in widths["layers"].items()}
    listed = ",\n".join(
        f"  {json.dumps(name, ensure_ascii=False)}: {layer}" for name, layer in layers.items()
    )
    rest = {name: json.dumps(value, ensure_ascii=False) for name, value in widths.items()}
    rest["layers"] = f"{{\n{listed}\n }}"
    return "{\n" + ",\n".join(f' "{name}": {value}' for name, value in rest.items()) + "\n}\n"


def _widths(model: nn.Module, structure: Structure) -> dict[str, Any]:
    """Path of a module -> its class, its settings, its own counts of units and features, and its tensors' shapes."""
    found = {}
    for path, module in modules_of(model).items():
        own = {
            name: [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
            for name, tensor in (*module._parameters.items(), *module._buffers.items())
            if tensor is not None and name not in module._non_persistent_buffers_set
        }
        sizes = {
            name: value
            for name in sorted(sizes_of(module))
            if isinstance(value := getattr(module, name, None), int) and not isinstance(value, bool)
        }
        layer = structure.get(path, {"class": _name_of(module), "settings": {}})
        if own or sizes or (path in structure and layer["settings"]):
            found[path] = {
                "class": _name_of(module),
                "settings": layer["settings"],
                "sizes": sizes,
                "tensors": own,
            }
    return found


def _of_dpap(module: nn.Module) -> bool:
    return type(module).__module__.partition(".")[0] == "dpap"


def _substitute(module: nn.Module) -> type[nn.Module] | None:
    """The module of torch that computes what one of dpap does."""
    found: type[nn.Module] | None = getattr(type(module), "without_dpap", None)
    return found


def _name_of(module: nn.Module) -> str:
    return (_substitute(module) or type(module)).__name__


def _in_turn(module: nn.Module) -> dict[str, Any] | None:
    """Modules of torch.nn in turn, as their constructors take them; None where a network is more than that."""
    # a forward of one object's own is in no class
    if "forward" in vars(module) or any(getattr(module, hooks) for hooks in HOOKS):
        return None
    if type(module) is nn.Sequential:
        children = [[name, _in_turn(child)] for name, child in module._modules.items() if child is not None]
        return None if any(child is None for _, child in children) else {"children": children}
    kind = _substitute(module) or type(module)
    if getattr(nn, kind.__name__, None) is not kind or any(True for _ in module.children()):
        return None
    arguments = {}
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        if name == "self" or name in INITIAL or name.startswith("_"):
            continue
        if not hasattr(module, name) or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return None
        value = getattr(module, name)
        if name == "bias" and not isinstance(value, bool):
            value = value is not None
        if value is not None and not is_plain(single(value)):
            return None
        if single(value) != parameter.default:  # another version of torch may lack what is new
            arguments[name] = list(value) if isinstance(value, tuple) else value
    return {"class": kind.__name__, "arguments": arguments}


def _is_same(layers: dict[str, Any], model: nn.Module) -> bool:
    """Whether layers in turn have the tensors of a network, and no module twice."""
    modules = list(model.named_modules(remove_duplicate=False))
    if len({id(module) for _, module in modules}) < len(modules):
        return False
    try:
        with torch.device("meta"):
            made = builder_template.in_turn(layers)
    except (TypeError, ValueError, RuntimeError):
        return False
    shapes, own = ({name: value.shape for name, value in each.state_dict().items()} for each in (made, model))
    return shapes == own


def is_json(value: Any) -> bool:
    """Whether JSON gives a value back as it was."""
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False
