"""What the programs of this folder share: small runs, whether two of them came to the same, and results one by one."""

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "src"), str(HERE.parents[1] / "tests")]

import torch

from dpap.data import DataConfig
from dpap.experiment.config import ExperimentConfig, TrainingConfig
from dpap.experiment.machine import describe_machine
from dpap.experiment.progress import Quiet
from dpap.experiment.run_folder import RunFolder
from dpap.experiment.sealed import append, read_lines
from dpap.experiment.tables import text_table
from dpap.models import NetworkConfig
from dpap.pruning.config import PruningConfig
from support.runs import same_bits, timeless

torch.set_num_threads(1)
EPOCHS = 4


class Heard(Quiet):
    """Keeps the messages of a run."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def small_run(
    folder: Path, *, spiking: bool = False, prune: bool = True, protocol: str = "last", **pruning: Any
) -> ExperimentConfig:
    """A run of a second: some of the embedded digits, two hidden layers."""
    return ExperimentConfig(
        name="small",
        data=DataConfig(
            batch_size=32, train_limit=96, test_limit=32, validation=0.25 if protocol == "validation" else 0.0
        ),
        network=NetworkConfig(layers="16FC-12FC-10FC", neuron="lif" if spiking else "relu", timesteps=3),
        prune=prune,
        pruning=PruningConfig(
            **{
                "target": 0.6,
                "end_epoch": 3,
                "compact": "auto",
                "observe_every": 1,
                "start_epoch": 0,
                **pruning,
            }
        ),
        training=TrainingConfig(epochs=EPOCHS, learning_rate=0.01, threads=1),
        protocol=protocol,
        out=str(folder),
    )


def difference(folder: Path, other: Path) -> str:
    """What differs between two finished runs beyond seconds and dates; empty where nothing does."""
    ours, theirs = RunFolder(folder), RunFolder(other)
    if ours.model.read_bytes() != theirs.model.read_bytes():
        return "model.safetensors"
    for one, two in ((ours.metrics, theirs.metrics), (ours.survival, theirs.survival)):
        if timeless(read_lines(one)) != timeless(read_lines(two)):
            return one.name
    if timeless(json.loads(ours.summary.read_bytes())) | {"sha256": ""} != (
        timeless(json.loads(theirs.summary.read_bytes())) | {"sha256": ""}
    ):
        return "summary.json"
    try:
        same_bits(folder, other)
    except AssertionError as error:
        return f"checkpoint.pt: {str(error).splitlines()[0]}"
    return ""


class Trials:
    """Results in a file of lines, each written as soon as it is there: a second call goes on where the first ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.done: list[dict[str, Any]] = read_lines(path)

    def add(self, result: dict[str, Any]) -> None:
        """One trial."""
        append(self.path, result)
        self.done.append(result)

    def table(self, by: str, outcomes: tuple[str, ...]) -> str:
        """How many trials of each kind came to each outcome."""
        counts = Counter((each[by], each["outcome"]) for each in self.done)
        rows = [
            [kind, *(str(counts[kind, outcome]) for outcome in outcomes)]
            for kind in dict.fromkeys(each[by] for each in self.done)
        ]
        total = Counter(each["outcome"] for each in self.done)
        rows.append(["all", *(str(total[outcome]) for outcome in outcomes)])
        return text_table([by, *outcomes], rows)


def script_of(path: Path) -> ModuleType:
    """The script beside a network's weights."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def machine() -> str:
    """The machine in words."""
    return ", ".join(f"{key} {value}" for key, value in describe_machine(torch.device("cpu")).items())
