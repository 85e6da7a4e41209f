"""The files of a run, brought to what its checkpoint says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dpap.experiment.config import ExperimentConfig, complete_from, parse_yaml
from dpap.experiment.errors import UserError
from dpap.experiment.run_folder import RunFolder
from dpap.experiment.sealed import (
    CUT_OFF,
    Record,
    intact_lines,
    line_of,
    numbered_lines,
    read_json,
    read_lines,
)
from dpap.files import write_text

Message = Callable[[str], None]
MAY_MOVE = {
    "out",
    "structure",
    "data.root",
    "data.cache",
    "training.device",
    "training.threads",
    "training.log",
}
"""Keys of the configuration that may change before a run is resumed, as on another machine."""
OF_AN_EPOCH = {
    "epoch", "test_accuracy", "sparsity", "timestep_sparsity", "target_of", "achieved", "seconds",
}  # fmt: skip
"""What the end of a run needs of every line of metrics.jsonl."""


def lines_of(records: list[Record], survival: Record | None) -> dict[str, str]:
    """What a checkpoint holds of the files of lines: all of metrics.jsonl, the last line of survival.jsonl."""
    return {"records": json.dumps(records), "survival": json.dumps(survival)}


def mend_lines(folder: RunFolder, state: dict[str, Any] | None, message: Message) -> list[Record]:
    """Make metrics.jsonl and survival.jsonl what they were when the checkpoint was written; returns the records.

    Args:
        folder: of the run.
        state: its checkpoint; None before the first.
        message: gets what was damaged.

    Raises:
        UserError: when metrics.jsonl does not fit a checkpoint that has no records itself, as of dpap 0.1.0.
    """
    epoch = 0 if state is None else state["epoch"]
    survival = None
    if state is None or "records" in state:
        records = [] if state is None else _records_in(state)
        survival = None if state is None else json.loads(state["survival"])
    else:
        records = _records_until(folder.metrics, epoch)
    text = "".join(map(line_of, records))
    before = folder.metrics.read_bytes() if folder.metrics.exists() else b""
    if before != text.encode():
        if state is not None and "records" in state and not before.startswith(text.encode()):
            message(
                f"{folder.metrics} was changed, damaged or cut off; it is written anew from the checkpoint"
            )
        write_text(folder.metrics, text)
    _mend_survival(folder.survival, epoch, survival, message)
    return records


def _records_in(state: dict[str, Any]) -> list[Record]:
    """The records in a checkpoint.

    Raises:
        ValueError: where they are not those of its epochs.
    """
    records: list[Record] = json.loads(state["records"])
    if [record["epoch"] for record in records if record.keys() >= OF_AN_EPOCH] != list(
        range(1, state["epoch"] + 1)
    ):
        raise ValueError(f"it does not hold the records of its {state['epoch']} epochs")
    return records


def _records_until(path: Path, epoch: int) -> list[Record]:
    records = [
        record for record in read_lines(path) if record.keys() >= OF_AN_EPOCH and record["epoch"] <= epoch
    ]
    if len(records) != epoch:
        raise UserError(
            f"{path} holds {len(records)} of the {epoch} epochs in the checkpoint: it was changed or damaged; start "
            "the run again with --overwrite"
        )
    return records


def _mend_survival(path: Path, epoch: int, last: Record | None, message: Message) -> None:
    """Keep the intact lines up to `epoch`, and put the last one back."""
    if not path.exists() and last is None:
        return
    found, damaged = intact_lines(path)
    for why in damaged.values():
        if why != CUT_OFF:
            message(f"{why}; this epoch is left out of it")
    lines = {record["epoch"]: record for record in found.values() if isinstance(record.get("epoch"), int)} | (
        {} if last is None else {last["epoch"]: last}
    )
    if last is not None and (lacking := set(range(1, epoch + 1)) - lines.keys()):
        message(f"{path} was cut off or damaged: it lacks {len(lacking)} of {epoch} epochs")
    text = "".join(line_of(lines[key]) for key in sorted(lines) if key <= epoch)
    if not path.exists() or path.read_bytes() != text.encode():
        write_text(path, text)


def what_is_damaged(folder: RunFolder) -> str | None:
    """What is wrong with the files of a finished run that its checkpoint can mend; None where nothing is."""
    try:
        epochs = folder.read_summary()["epochs"]
        records, cut_off = numbered_lines(folder.metrics)
        if cut_off or len(records) != epochs:
            return f"{folder.metrics} holds {len(records)} of {epochs} epochs"
        if numbered_lines(folder.survival)[1]:
            return f"{folder.survival} is cut off"
        if folder.spikes.exists():
            read_json(folder.spikes)
    except UserError as error:
        return str(error)
    return None if folder.model.exists() else f"{folder.model} is missing"


def check_configuration(folder: RunFolder, config: ExperimentConfig, message: Message) -> None:
    """Compare the configuration in a run folder with the one that the run began with.

    Raises:
        UserError: when more than places changed, or what the run began with is damaged.
    """
    if not folder.facts.exists():
        message(f"{folder.facts} is missing: whether {folder.config.name} was changed cannot be told")
        return
    begun = read_json(folder.facts).get("config")
    if isinstance(begun, str):
        where = f"the configuration in {folder.facts}"
        before = complete_from(parse_yaml(begun, where), where)
        refuse_changes(config, before)
        for key in changed_keys(config, before):
            if key not in ("out", "structure"):
                message(f"{folder.config}: {key} is not what the run began with, but may change")


def refuse_changes(config: ExperimentConfig, stored: dict[str, Any]) -> None:
    """Raises UserError where a configuration to resume is another one than that of its run, `stored`."""
    changed = [key for key in changed_keys(config, stored) if key not in MAY_MOVE]
    if (config.structure is None) != (stored.get("structure") is None):
        changed.append("structure")  # it may lie elsewhere, but a run has one or none
    if changed:
        raise UserError(
            f"{', '.join(changed)} changed since the checkpoint of {config.folder}; a resumed run keeps its "
            "configuration: put config.yaml back, or start a run in another folder (--out)"
        )


def changed_keys(config: ExperimentConfig, stored: dict[str, Any]) -> list[str]:
    """The keys whose values differ, as they stand in files."""
    given, before = leaves(config.as_dict()), leaves(stored)
    return [key for key in sorted(given.keys() | before.keys()) if given.get(key) != before.get(key)]


def leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a nested configuration by their keys, joined by dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = list(value) if isinstance(value, tuple) else value
    return found
