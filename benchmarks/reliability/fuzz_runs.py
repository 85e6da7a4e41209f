"""Files of runs, comparisons and recipes: good ones, ways to damage and to forge them, and how they are read."""

import copy
import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from fuzz_kinds import Forge, Kind
from fuzz_mutations import Random, changed, damaged, other_tensor, places_of
from torch import Tensor, nn
from trials import small_run

from dpap.data.kind import kind_of
from dpap.experiment.checkpoint import read_checkpoint, write_checkpoint
from dpap.experiment.comparing.grid import plan, read_grid
from dpap.experiment.comparing.results import EPOCHS, RESULTS, EpochResult, Result, as_csv, read_csv
from dpap.experiment.config import ExperimentConfig, load_config
from dpap.experiment.errors import UserError
from dpap.experiment.learner import build_model
from dpap.experiment.progress import Quiet
from dpap.experiment.run_folder import RunFolder
from dpap.experiment.sealed import line_of
from dpap.experiment.train import resume, train
from dpap.experiment.using.deployed import deploy, read_config
from dpap.experiment.using.kept import finished
from dpap.models import NetworkConfig
from dpap.report.records import read_run
from dpap.surgery import save


def checkpoint() -> Kind:
    """Checkpoints, with a checksum and, as of dpap 0.1.0, without: damaged, or archives of other parts that fit it."""
    states = {
        "epoch": 1,
        "config": {"a": 1},
        "model": nn.Linear(3, 2).state_dict(),
        "optimizer": {},
        "pruner": None,
    }
    old = io.BytesIO()
    torch.save({"format": 1, **states}, old)
    files = {"checkpoint.pt": as_checkpoint(states), "old.pt": old.getvalue()}

    def forge_of(name: str) -> Forge:
        def forge(random: Random) -> bytes:
            buffer = io.BytesIO()
            with zipfile.ZipFile(io.BytesIO(files[name])) as good, zipfile.ZipFile(buffer, "w") as new:
                names = good.namelist()
                spoiled = names[random.integers(len(names))]
                for each in names:
                    content, method = good.read(each), zipfile.ZIP_STORED
                    if each == spoiled:
                        content = damaged(content, random) if random.random() < 0.95 else bytes(32 << 20)
                        method = zipfile.ZIP_DEFLATED if len(content) > 1 << 20 else method
                    new.writestr(each, content, method)
                new.comment = good.comment and b"dpap sha256 " + hashlib.sha256(b"").hexdigest().encode()
            content = buffer.getvalue()
            if b"dpap sha256 " in content[-100:]:
                content = content[:-64] + hashlib.sha256(content[: -64 - 12]).hexdigest().encode()
            return content

        return forge

    def read(folder: Path) -> object:
        return [read_checkpoint(folder / name) for name in files]

    return Kind(files, read, (UserError,), {name: forge_of(name) for name in files})


def as_checkpoint(state: dict[str, Any]) -> bytes:
    """A whole checkpoint of a state."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        write_checkpoint(path, state)
        return path.read_bytes()


def run() -> Kind:
    """A run folder, as `dpap report` reads it."""
    layer = {
        "name": "fc1",
        "kind": "fc",
        "units": 4,
        "alive": 3,
        "weights": 12,
        "weights_alive": 9,
        "timesteps_alive": 1.0,
    }
    epoch = {
        "epoch": 1, "train_loss": 0.5, "train_accuracy": 0.9, "test_loss": 0.5, "test_accuracy": 0.8, "sparsity": 0.2,
        "epsilon": {"conv": 1.0}, "seconds": 2.0, "target": 0.5, "target_of": "weights",
        "compacted": {"parameters_before": 9, "parameters_after": 4}, "layers": [layer],
    }  # fmt: skip
    cost = {
        "parameters": 12,
        "weights": 12,
        "macs": 12,
        "layers": [{"name": "fc1", "units": 4, "features": 3, "weights": 12}],
    }
    summary = {
        "epochs": 2,
        "final_epoch": 2,
        "final_test_accuracy": 0.8,
        "sparsity": 0.2,
        "before": cost,
        "after": cost,
    }
    neurons = {
        "name": "spike1",
        "units": 2,
        "neurons": 2,
        "spikes": 3,
        "silenced": 0.1,
        "rows": [{"unit": unit, "spikes": "01-1"} for unit in range(2)],
    }
    spikes = {"label": 3, "timesteps": 4, "total_layers": 1, "layers": [neurons]}
    values: dict[str, list[Any]] = {
        "run.json": [{"name": "a", "network": "4FC", "spiking": False, "machine": {"cpu": "x"}, "seed": 1}],
        "metrics.jsonl": [epoch, {**epoch, "epoch": 2}],
        "survival.jsonl": [{"epoch": number, "layers": {"fc1": [1.0, None, 0.5, 1.0]}} for number in (1, 2)],
        "summary.json": [summary],
        "spikes.json": [spikes],
    }

    def text(lines: list[Any]) -> bytes:
        return b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    def forge_of(name: str) -> Forge:
        def forge(random: Random) -> bytes:
            if random.random() < 0.05:
                return (b"[" if random.random() < 0.5 else b'{"a":') * int(random.choice([10, 100_000]))
            lines = list(values[name])
            place = int(random.integers(len(lines)))
            lines[place] = changed(lines[place], random)
            return text(lines)

        return forge

    files = {name: text(lines) for name, lines in values.items()} | {
        "config.yaml": b"name: a\n",
        "twin": b"../a",
    }
    return Kind(files, read_run, (UserError, FileNotFoundError), {name: forge_of(name) for name in values})


def tables() -> Kind:
    """The tables of a comparison."""

    def filled(kind: Any) -> Any:
        return kind(
            **{
                name: 1.0 if "float" in str(of) else 1 if of is int or of == int | None else "a"
                for name, of in kind.__annotations__.items()
            }
        )

    files = {
        RESULTS: as_csv(Result, [filled(Result)] * 2).encode(),
        EPOCHS: as_csv(EpochResult, [filled(EpochResult)] * 2).encode(),
    }

    def read(folder: Path) -> object:
        return read_csv(Result, folder / RESULTS), read_csv(EpochResult, folder / EPOCHS)

    def forge_of(name: str) -> Forge:
        def forge(random: Random) -> bytes:
            rows = list(csv.reader(io.StringIO(files[name].decode())))
            row = changed(rows[1], random)
            rows[random.integers(len(rows))] = list(map(str, row if isinstance(row, list) else [row]))
            buffer = io.StringIO()
            csv.writer(buffer).writerows(rows)
            return buffer.getvalue().encode(errors="surrogatepass")

        return forge

    return Kind(files, read, (UserError,), {name: forge_of(name) for name in files})


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + number)}: &{chr(98 + number)} [{', '.join([f'*{chr(97 + number)}'] * 9)}]\n"
    for number in range(9)
)


def recipe() -> Kind:
    """A recipe."""
    values = ExperimentConfig().as_dict()

    def forge(random: Random) -> bytes:
        choice = random.random()
        if choice < 0.04:
            return LAUGHS.encode()
        if choice < 0.08:
            return b"data: " + b"{a: " * int(random.choice([5, 5000])) + b"1"
        if choice < 0.1:
            return b"data: &x\n  arguments: *x\n"
        return yaml.safe_dump(changed(values, random), sort_keys=False, allow_unicode=False).encode()

    files = {"recipe.yaml": yaml.safe_dump(values, sort_keys=False).encode()}
    return Kind(
        files, lambda folder: load_config(folder / "recipe.yaml"), (UserError,), {"recipe.yaml": forge}
    )


def grid() -> Kind:
    """The rows of a comparison, and a recipe that they name."""
    rows = [
        {
            "recipe": "recipe.yaml",
            "name": "a",
            "methods": ["dpap", "random"],
            "targets": [0.5],
            "seeds": [0, 1],
        },
        {"recipe": "digits_snn", "set": {"data": {"train_limit": 9}, "pruning": {"end_epoch": 2}}},
    ]

    def forge(random: Random) -> bytes:
        if random.random() < 0.05:
            return LAUGHS.encode()
        return yaml.safe_dump(changed(rows, random), sort_keys=False).encode()

    def read(folder: Path) -> object:
        found = read_grid(folder / "grid.yaml", methods=["dpap"], targets=[0.5], seeds=[0])
        try:
            return plan(found, folder / "comparison")
        except UserError as error:
            named = any(row.recipe in str(error) for row in found)
            raise UserError(f"grid.yaml: {error}" if named else str(error)) from error

    files = {"grid.yaml": yaml.safe_dump(rows, sort_keys=False).encode(), "recipe.yaml": b"name: a\n"}
    return Kind(files, read, (UserError,), {"grid.yaml": forge})


class _Stop(Quiet):
    """Ends a run after its first step."""

    def batch(self, done: int) -> None:
        raise KeyboardInterrupt


def resumed() -> Kind:
    """A run folder that training goes on in, up to its first step."""
    with TemporaryDirectory() as place:
        files = RunFolder(Path(place) / "run")
        config = small_run(files.path, protocol="validation", end_epoch=1)
        config = replace(
            config, data=replace(config.data, train_limit=32), network=NetworkConfig("4FC-10FC", "relu")
        )
        train(replace(config, training=replace(config.training, epochs=1)), overwrite=True)
        state = read_checkpoint(files.checkpoint)
        config = replace(config, training=replace(config.training, epochs=2))
        files.begin(config.as_yaml(), {"config": config.as_yaml(), "seed": 0})
        files.metrics.write_text("".join(map(line_of, json.loads(state["records"]))))
        files.survival.write_text(line_of(json.loads(state["survival"])))
        state["config"] = config.as_dict()
        write_checkpoint(files.checkpoint, state)
        good = {f"run/{path.name}": path.read_bytes() for path in files.path.iterdir() if path.is_file()}

    def forged_checkpoint(random: Random) -> bytes:
        if random.random() < 0.8:
            return as_checkpoint(other_state(state, random))
        part = ("records", "survival")[random.integers(2)]
        return as_checkpoint({**state, part: json.dumps(changed(json.loads(state[part]), random))})

    def forged_facts(random: Random) -> bytes:
        facts: Any = {"config": config.as_yaml(), "seed": 0}
        choice = random.random()
        if choice < 0.3:
            facts["config"] = damaged(config.as_yaml().encode(), random).decode(errors="replace")
        elif choice < 0.6:
            facts["config"] = yaml.safe_dump(changed(config.as_dict(), random))
        elif choice < 0.7:
            facts["config"] = LAUGHS
        else:
            facts = changed(facts, random)
        return json.dumps(facts).encode()

    def read(folder: Path) -> object:
        try:
            with suppress(KeyboardInterrupt):
                resume(folder / "run", progress=_Stop())
            return None
        finally:
            for name, content in good.items():
                if (folder / name).read_bytes() != content:
                    (folder / name).write_bytes(content)

    return Kind(
        good,
        read,
        (UserError, FileNotFoundError),
        {"run/checkpoint.pt": forged_checkpoint, "run/run.json": forged_facts},
    )


def deployed() -> Kind:
    """A finished run, of which the network is built and loaded, as `dpap predict` and `dpap evaluate` do."""
    with TemporaryDirectory() as place:
        files = RunFolder(Path(place))
        config = replace(small_run(files.path), network=NetworkConfig("4FC-10FC", "relu"))
        kind = kind_of(config.data)
        assert kind is not None, "the data set is built in"
        save(build_model(config, kind, torch.device("cpu")), files.model)
        good = {"config.yaml": config.as_yaml().encode(), files.model.name: files.model.read_bytes()}

    def read(folder: Path) -> object:
        run = finished(folder)
        config, _ = read_config(run, {}, allow_imports=False)
        found = kind_of(config.data)
        return None if found is None else deploy(run, config, found)

    return Kind(good, read, (UserError,))


def other_state(state: dict[str, Any], random: Random) -> dict[str, Any]:
    """Tensors and values of which a few are others."""
    places = [place for place in places_of(state) if isinstance(place[0][place[1]], Tensor)]
    if random.random() < 0.5 or not places:
        other = changed(state, random)
        return other if isinstance(other, dict) else {"format": other}
    state = copy.deepcopy(state)
    places = [place for place in places_of(state) if isinstance(place[0][place[1]], Tensor)]
    for _ in range(random.integers(1, 3)):
        holder, key = places[random.integers(len(places))]
        holder[key] = other_tensor(holder[key], random)
    return state


KINDS: dict[str, Callable[[], Kind]] = {
    "checkpoint": checkpoint,
    "run": run,
    "tables": tables,
    "recipe": recipe,
    "grid": grid,
    "run, to go on": resumed,
    "run, deployed": deployed,
}
