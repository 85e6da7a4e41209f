"""A folder as model hubs take it: weights, card, licence, and what builds the network."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from dpap.files import new_folder, write_text
from dpap.surgery.plain import not_plain, plain_files
from dpap.surgery.storage import save

WEIGHTS, CARD, LICENCE = "model.safetensors", "README.md", "LICENSE"
Measured = Mapping[str, tuple[str | None, str | None]]
"""What was measured -> its value for the dense and for the compact network, as text; None where it was not."""


def export_hub(
    model: nn.Module,
    folder: str | Path,
    *,
    name: str,
    licence: str,
    licence_text: str,
    measured: Measured | None = None,
    conditions: str = "",
    inputs: str = "",
    build: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    dense: str = "",
    tags: Sequence[str] = (),
    datasets: Sequence[str] = (),
    metrics: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Write a folder that can be pushed to a model hub, whole or not at all.

    It holds the weights, a card with the measured table and how to load them, the licence and, where the network runs
    without dpap, the widths and the script of `dpap.save(..., format="plain")`. Nothing is sent anywhere.

    Args:
        model: the compact network.
        folder: of the files.
        name: of the network, the card's title.
        licence: its identifier, as the hub lists it: "mit", "apache-2.0", "other". There is no default.
        licence_text: the text of the licence.
        measured: lines of the table; what was not measured is a dash there.
        conditions: a sentence on how that was measured.
        inputs: a sentence on what the network takes, such as how samples are normalised.
        build, arguments: as `dpap.save` takes them.
        dense: Python that defines `build`, which returns the dense network, for the card; where there is no factory.
        tags, datasets, metrics: of the card's metadata.
        overwrite: replace the files of an earlier export there; a folder that holds others is never replaced.

    Returns:
        The folder.

    Raises:
        FileExistsError: where the folder holds something.
        ValueError: where the licence is empty, or the factory has no such name.
        OSError: where it cannot be written.

    Example:
        >>> import dpap
        >>> from torch import nn
        >>> small = nn.Sequential(nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> folder = dpap.export_hub(small, "tiny", name="Tiny", licence="mit", licence_text="MIT License ...")
        >>> sorted(file.name for file in folder.iterdir())
        ['LICENSE', 'README.md', 'model.safetensors', 'model_builder.py', 'model_widths.json']
    """
    folder = Path(folder)
    for what, text in (("licence", licence), ("licence_text", licence_text), ("name", name)):
        if not text.strip():
            raise ValueError(f"{what} must be given; got {text!r}")
    why = not_plain(model)
    files = plain_files(Path(WEIGHTS))
    own = {*(file.name for file in files), CARD, LICENCE}
    with new_folder(folder, own if overwrite else set()) as made:
        if why is None:
            save(model, made / WEIGHTS, "plain", build, arguments)
            in_turn = (
                json.loads((made / files.widths.name).read_text(encoding="utf-8"))["in_turn"] is not None
            )
        else:
            save(model, made / WEIGHTS)
            in_turn = False
        card = [
            _metadata(
                licence, ["pruning", "dpap", *tags], datasets, metrics, "pytorch" if why is None else "dpap"
            ),
            f"# {_line(name)}\n",
            "A network that was made smaller while it learned, by developmental plasticity-inspired adaptive pruning "
            "(dpap): what died was removed from it.\n",
            *([f"## What it takes\n\n{inputs.strip()}\n"] if inputs.strip() else []),
            *_table(measured or {}, conditions),
            *_loading(files.builder.stem, why, build, arguments, dense, in_turn),
            f"## Licence\n\n{_line(licence)}: see [{LICENCE}]({LICENCE}).\n",
        ]
        write_text(made / CARD, "\n".join(card))
        write_text(made / LICENCE, licence_text.rstrip("\n") + "\n")
    return folder


def _metadata(
    licence: str, tags: Sequence[str], datasets: Sequence[str], metrics: Sequence[str], library: str
) -> str:
    """YAML, of which JSON is a part; what is empty is left out."""
    fields: dict[str, Any] = {
        "license": licence,
        "library_name": library,
        "tags": list(dict.fromkeys(tags)),
        "datasets": list(datasets),
        "metrics": list(metrics),
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items() if value]
    return "\n".join(["---", *lines, "---", ""])


def _table(measured: Measured, conditions: str) -> list[str]:
    if not measured:
        return []
    lines = ["## Measured\n", "| | dense | compact |", "| --- | --- | --- |"]
    for what, values in measured.items():
        before, after = ("-" if value is None else _line(value) for value in values)
        lines.append(f"| {_line(what)} | {before} | {after} |")
    return [*lines, "", f"{conditions}\n" if conditions else ""]


def _loading(
    builder: str,
    why: str | None,
    build: str | None,
    arguments: Mapping[str, Any] | None,
    dense: str,
    in_turn: bool,
) -> list[str]:
    """How to load it, with and without dpap."""
    given = ", ".join(f"{key}={value!r}" for key, value in (arguments or {}).items())
    if build is not None:
        module, _, attribute = build.partition(":")
        dense = f"import {module}\n\n\ndef build():\n    return {module}.{attribute}({given})\n"
    own = "" if dense else "  # build() returns the dense network, by your own code"
    lines = ["## How to load it\n"]
    if why is None:
        lines.append(f"Without dpap, by torch and safetensors; `{builder}.py` lies in this folder:\n")
        if build is not None or in_turn:
            lines.append(f"```python\nfrom {builder} import load\n\nmodel = load()\n```\n")
        else:
            code = f"{dense.rstrip()}\n\n\n" if dense else ""
            lines.append(f"```python\n{code}from {builder} import load\n\nmodel = load(build){own}\n```\n")
    else:
        lines.append(f"It needs dpap: {why}.\n")
    code = f"import dpap\n{dense.rstrip()}\n\n\n" if dense else "import dpap\n\n"
    lines.append(f'With dpap:\n\n```python\n{code}model = dpap.load("{WEIGHTS}", build()).eval(){own}\n```\n')
    return lines


def _line(text: str) -> str:
    """Text that stays in its line and its cell."""
    return " ".join(text.split()).replace("|", "\\|")
