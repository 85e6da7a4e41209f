"""A run folder as typed records; everything that a run may lack is None or empty, and named in `missing`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dpap.experiment.config import parse_yaml
from dpap.experiment.errors import UserError
from dpap.experiment.run_folder import RunFolder
from dpap.experiment.sealed import numbered_lines, read_json, read_text
from dpap.experiment.spikes import QUIET, SILENCED, SPIKE
from dpap.report.fields import Fields, finite


@dataclass(frozen=True)
class Layer:
    """One layer at the end of an epoch; `units` and `weights` count the dense network."""

    name: str
    kind: str
    units: int
    alive: int
    weights: int
    weights_alive: int
    timesteps_alive: float


@dataclass(frozen=True)
class Compaction:
    """A physical removal of the dead."""

    parameters_before: int | None
    parameters_after: int | None
    largest_difference: float | None


@dataclass(frozen=True)
class Epoch:
    """One line of metrics.jsonl; accuracies and sparsities are shares in [0, 1], times are seconds."""

    epoch: int
    train_loss: float | None
    train_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None
    validation_accuracy: float | None
    learning_rate: float | None
    sparsity: float | None
    timestep_sparsity: float | None
    target_of: str | None
    achieved: float | None
    target: float | None
    epsilon: dict[str, float]
    seconds: float | None
    evaluate_seconds: float | None
    prune_seconds: float | None
    compacted: Compaction | None
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Survival:
    """The survival function (11) of every original unit after an epoch; None once it is dead."""

    epoch: int
    layers: dict[str, list[float | None]]


@dataclass(frozen=True)
class SpikingLayer:
    """Spikes of one sample in a layer of neurons.

    Attributes:
        name: of the neurons.
        units, neurons, spikes: of the whole layer; a channel is one unit of many neurons.
        silenced: share of its neuron-timesteps that is silenced.
        rows: unit -> one character a timestep of a neuron of it, as `dpap.experiment.spikes` writes them.
    """

    name: str
    units: int
    neurons: int
    spikes: int
    silenced: float
    rows: dict[int, str]


@dataclass(frozen=True)
class Spikes:
    """spikes.json: the spikes of one test sample in the network that a run kept."""

    label: int | None
    timesteps: int
    total_layers: int
    layers: tuple[SpikingLayer, ...]


@dataclass(frozen=True)
class LayerCost:
    """A weight layer of the network that a cost was measured on."""

    name: str
    units: int | None
    features: int | None
    weights: int | None


@dataclass(frozen=True)
class Cost:
    """What one network costs; operations, energy (joules) and latency are for one sample, all timesteps.

    `latency_low` and `latency_high` are the quartiles around its median; older runs did not record them.
    """

    parameters: float | None
    weights: float | None
    macs: float | None
    synaptic_operations: float | None
    accumulates: float | None
    multiplies: float | None
    picojoules: float | None
    energy: float | None
    latency_seconds: float | None
    latency_low: float | None
    latency_high: float | None
    layers: tuple[LayerCost, ...]


@dataclass(frozen=True)
class Summary:
    """summary.json, written when the run has finished; `final_epoch` is the one that the protocol reports."""

    epochs: int | None
    best_epoch: int | None
    best_test_accuracy: float | None
    final_epoch: int | None
    final_test_accuracy: float | None
    sparsity: float | None
    timestep_sparsity: float | None
    seconds_training: float | None
    before: Cost | None
    after: Cost | None
    finished: str | None


@dataclass(frozen=True)
class Run:
    """Everything that a run recorded; `missing` names in sentences what it did not.

    `target` and `target_of` are those that its configuration asks for.
    """

    path: Path
    name: str
    network: str | None
    dataset: str | None
    data: str | None
    spiking: bool
    timesteps: int | None
    machine: dict[str, Any]
    seed: int | None
    command: str | None
    protocol: str | None
    started: str | None
    wiring: str | None
    configuration: str | None
    target: float | None
    target_of: str | None
    epochs: tuple[Epoch, ...]
    survival: tuple[Survival, ...]
    summary: Summary | None
    spikes: Spikes | None
    twin: "Run | None"
    missing: tuple[str, ...]

    @property
    def last(self) -> Epoch | None:
        """The last recorded epoch."""
        return self.epochs[-1] if self.epochs else None

    @property
    def reported(self) -> Epoch | None:
        """The epoch of the network that the protocol reports: a chosen one, or the last."""
        final = self.summary.final_epoch if self.summary is not None else None
        return next((epoch for epoch in self.epochs if epoch.epoch == final), self.last)

    @property
    def target_cost(self) -> str | None:
        """What the target is a share of, where that is not the weights."""
        target, of = self.target, self.target_of
        if self.last is not None and self.last.target is not None:
            target, of = self.last.target, self.last.target_of
        return None if target is None or of in (None, "weights") else str(of).replace("_", " ")

    @property
    def prunes(self) -> bool:
        """Whether anything was pruned, or was to be."""
        if self.summary is not None and self.summary.sparsity:
            return True
        return bool(self.survival) or any(e.sparsity or e.timestep_sparsity or e.target for e in self.epochs)


def read_run(path: Path) -> Run:
    """The records of the run folder `path` and of the dense twin that it names.

    Raises:
        FileNotFoundError: `path` is no run folder.
        UserError: a file of it holds something else than a run writes.
    """
    run = _read(path)
    pointer = RunFolder(path).twin
    if not pointer.is_file():
        return run
    named = pointer.read_bytes().decode(errors="replace").strip()
    try:
        twin = _read((path / named).resolve())
        if not twin.prunes and (twin.seed, twin.network, twin.dataset) == (
            run.seed,
            run.network,
            run.dataset,
        ):
            return replace(run, twin=twin)
        note = (
            f"“{named}” is no dense twin of this run, with its seed, network and data: nothing is compared."
        )
    except (OSError, ValueError):  # not there, or no path at all
        note = f"The dense twin “{named}” is not there: nothing is compared."
    except UserError as error:
        note = f"The dense twin “{named}” cannot be read: {error}."
    return replace(run, missing=(*run.missing, note))


def _read(path: Path) -> Run:
    files = RunFolder(path)
    if not files.facts.is_file():
        raise FileNotFoundError(_no_run(path))
    missing: list[str] = []
    facts = Fields(read_json(files.facts), files.facts.name)
    # A resumed run may write an epoch again: the last line about an epoch is the one that counts.
    epochs = {e.epoch: e for e in map(_epoch, _lines(files.metrics, missing))}
    survival = {s.epoch: s for s in map(_survival, _lines(files.survival, missing))}
    summary = None
    if files.summary.is_file():
        summary = _summary(Fields(files.read_summary(), files.summary.name))
        if epochs and summary.epochs is not None and summary.epochs != len(epochs):
            missing.append(f"metrics.jsonl holds {len(epochs)} of the {summary.epochs} epochs of the run.")
    else:
        missing.append(
            "The run has no summary.json: it is still going on or was interrupted. Costs are not measured yet, "
            "and what stands here is the state after its last recorded epoch."
        )
    if survival and (lacking := epochs.keys() - survival.keys()):
        missing.append(f"survival.jsonl lacks {len(lacking)} epochs that metrics.jsonl holds.")
    if not epochs and summary is None:
        missing.append("metrics.jsonl holds no epoch yet: there is nothing to draw.")
    elif not epochs:
        missing.append(
            "metrics.jsonl is missing or empty, so no epoch can be drawn: "
            f"{files.resume_command} writes it anew from the checkpoint."
        )
    configuration, begun = None, facts.text("config")
    if files.config.is_file():
        configuration = read_text(files.config)
        if begun not in (None, configuration):
            missing.append("config.yaml is not what the run began with: it was changed or damaged.")
    else:
        missing.append("The run has no config.yaml: its configuration is not recorded.")
    target, target_of = _asked(begun or configuration)
    run = facts.fill(
        Run,
        path=path,
        name=facts.text("name") or path.resolve().name,
        spiking=bool(facts.values.get("spiking", False)),
        machine=facts.mapping("machine"),
        configuration=configuration,
        target=target,
        target_of=target_of,
        epochs=tuple(epochs[key] for key in sorted(epochs)),
        survival=tuple(survival[key] for key in sorted(survival)),
        summary=summary,
        spikes=_spikes(Fields(read_json(files.spikes), files.spikes.name))
        if files.spikes.is_file()
        else None,
        twin=None,
        missing=tuple(missing),
    )
    if run.prunes and not run.survival:
        missing.append("The run has no survival.jsonl: no survival function can be drawn.")
    return replace(run, missing=tuple(missing))


def _asked(configuration: str | None) -> tuple[float | None, str | None]:
    """The target of a configuration, and what it is a share of; nothing where it has none, or is damaged."""
    try:
        values = parse_yaml(configuration or "", "the configuration")
    except UserError:
        return None, None
    pruning = values.get("pruning") if isinstance(values, Mapping) and values.get("prune", True) else None
    if not isinstance(pruning, Mapping):
        return None, None
    target, of = pruning.get("target"), pruning.get("target_of", "weights")
    if not isinstance(target, int | float) or isinstance(target, bool) or not 0 <= target <= 1:
        return None, None
    return float(target), str(of)


def _lines(path: Path, missing: list[str]) -> list[Fields]:
    """The records of a file of lines of JSON; a last line that was cut off is noted in `missing`."""
    records, cut_off = numbered_lines(path)
    if cut_off:
        missing.append(f"The last line of {path.name} is cut off and left out.")
    return [Fields(record, f"{path.name}, line {number}") for number, record in records.items()]


def _no_run(path: Path) -> str:
    expected = "expected a run folder (run.json, metrics.jsonl, ... as `dpap train` and `dpap demo` write it)"
    if not path.exists():
        found = "nothing: it does not exist"
    elif not path.is_dir():
        found = "a file"
    else:
        names = sorted(entry.name for entry in path.iterdir())
        runs = [name for name in names if RunFolder(path / name).facts.is_file()]
        if runs:
            return f"{path}: {expected}; found a folder of runs. Give one of them, e.g. {path / runs[0]}"
        found = f"a folder with {', '.join(names[:6])}" if names else "an empty folder"
        found += f" and {len(names) - 6} more" if len(names) > 6 else ""
    return (
        f"{path}: {expected}; found {found}. Give the folder that a run wrote, or make one with `dpap demo`"
    )


def _epoch(line: Fields) -> Epoch:
    compacted = line.part("compacted")
    epsilon = Fields(line.mapping("epsilon"), f"{line.where}, epsilon")
    return line.fill(
        Epoch,
        epsilon={kind: value for kind in epsilon.values if (value := epsilon.number(kind)) is not None},
        compacted=None if compacted is None else compacted.fill(Compaction),
        layers=tuple(map(_layer, line.parts("layers"))),
    )


def _layer(entry: Fields) -> Layer:
    timesteps = entry.number("timesteps_alive")
    return entry.fill(
        Layer,
        name=entry.text("name") or "unnamed",
        kind=entry.text("kind") or "",
        timesteps_alive=1.0 if timesteps is None else timesteps,
    )


def _survival(line: Fields) -> Survival:
    layers: dict[str, list[float | None]] = {}
    for name, values in line.mapping("layers").items():
        if not isinstance(values, list) or not all(v is None or isinstance(v, (int, float)) for v in values):
            raise UserError(f"{line.where}: expected a list of numbers and nulls for layer “{name}”")
        layers[name] = [None if v is None else finite(v, f"{line.where}, “{name}”") for v in values]
    return Survival(line.need("epoch"), layers)


def _summary(fields: Fields) -> Summary:
    before, after = fields.part("before"), fields.part("after")
    return fields.fill(
        Summary,
        before=None if before is None else _cost(before),
        after=None if after is None else _cost(after),
    )


def _cost(fields: Fields) -> Cost:
    layers = (each.fill(LayerCost, name=each.text("name") or "unnamed") for each in fields.parts("layers"))
    return fields.fill(Cost, layers=tuple(layers))


def _spikes(fields: Fields) -> Spikes:
    return fields.fill(Spikes, layers=tuple(map(_spiking_layer, fields.parts("layers"))))


def _spiking_layer(entry: Fields) -> SpikingLayer:
    rows = {}
    for row in entry.parts("rows"):
        text = row.text("spikes")
        if text is None or not set(text) <= {QUIET, SPIKE, SILENCED}:
            raise UserError(
                f"{row.where}: expected text of {QUIET}, {SPIKE} and {SILENCED} as “spikes”, got {text!r:.60}"
            )
        rows[row.need("unit")] = text
    return entry.fill(
        SpikingLayer,
        name=entry.text("name") or "unnamed",
        silenced=entry.number("silenced") or 0.0,
        rows=rows,
    )
