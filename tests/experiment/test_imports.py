"""No file of a stranger runs code: a recipe, a grid, a run folder."""

import sys
from argparse import ArgumentError
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentParser

from dpap.cli import main
from dpap.experiment.config import PARTS, ExperimentConfig, add_experiment_flags, load_config, overridden
from dpap.experiment.errors import UserError
from dpap.experiment.run_folder import RunFolder
from dpap.experiment.train import resume

MODULE = """
from pathlib import Path
import torch

(Path(__file__).parent / "imported").touch()

class Shapes:
    classes = ["a", "b"]

    def __init__(self, train=True, size=64, **more):
        (Path(__file__).parent / "called").touch()
        self.targets = torch.arange(size) % 2

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        return torch.rand(1, 8, 8), int(self.targets[i])
"""
NETWORK: dict[str, Any] = {"layers": "4C3-AvgPool2-8FC-2FC", "neuron": "relu"}
OWN: dict[str, Any] = {
    "data": {"name": "stranger:Shapes", "batch_size": 16},
    "network": NETWORK,
    "pruning": {"target": 0.5, "start_epoch": 0, "end_epoch": 1},
    "training": {"epochs": 1, "threads": 1},
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a module of a stranger on the path."""
    (tmp_path / "stranger.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "stranger", raising=False)
    return tmp_path


def ran(place: Path) -> bool:
    return (place / "imported").exists() or (place / "called").exists()


def write(place: Path, values: Any, name: str = "recipe.yaml") -> str:
    (place / name).write_text(yaml.safe_dump(values))
    return str(place / name)


@pytest.mark.parametrize("command", [["inspect", "--config"], ["train", "--config"], ["compare", "--config"]])
def test_a_recipe_that_names_code_is_refused(
    command: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, write(place, OWN)]) == 2
    assert "--allow-imports" in capsys.readouterr().err
    assert not ran(place)


def test_so_is_a_grid(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(place, OWN)
    grid = write(place, [{"recipe": "recipe.yaml", "methods": ["dpap"], "seeds": [0]}], "grid.yaml")
    assert main(["compare", "--grid", grid]) == 2
    assert "--allow-imports" in capsys.readouterr().err
    assert not ran(place)


@pytest.mark.parametrize("flags", [["--allow-imports"], ["--data.name", "stranger:Shapes"]])
def test_it_is_taken_where_the_command_line_allows_or_names_it(flags: list[str], place: Path) -> None:
    assert main(["inspect", "--config", write(place, OWN), *flags]) == 0
    assert ran(place)


def test_another_name_on_the_command_line_allows_nothing(place: Path) -> None:
    recipe = write(place, OWN)
    assert main(["inspect", "--data.name", "digits", "--config", recipe]) == 2
    assert main(["inspect", "--data.name", "other:Thing", "--config", recipe]) == 2
    assert not ran(place)


def test_a_run_folder_goes_on_only_where_allowed(place: Path) -> None:
    folder = RunFolder(place / "run")
    folder.make()
    folder.begin(overridden(ExperimentConfig(out=str(folder.path)), OWN).as_yaml(), {})
    with pytest.raises(UserError, match="allow_imports=True"):
        resume(folder.path)
    assert main(["train", "--resume", str(folder.path), "--quiet"]) == 2
    assert not ran(place)
    assert main(["train", "--resume", str(folder.path), "--quiet", "--allow-imports"]) == 0
    assert ran(place)


@pytest.mark.parametrize(
    "arguments",
    [
        {"x": {"class_path": "stranger.Shapes"}},
        {"x": {"class_path": "stranger.Shapes", "init_args": {"size": 3}}},
        {"x": [{"class_path": "stranger.Shapes"}]},
        {"class_path": "stranger.Shapes", "init_args": {"size": 3}},
    ],
)
def test_no_argument_is_taken_for_a_class(arguments: dict[str, Any], place: Path) -> None:
    recipe = write(place, {"data": {"name": "digits", "arguments": arguments}, "network": NETWORK})
    assert load_config(recipe).data.arguments == arguments
    assert main(["inspect", "--config", recipe]) == 2  # digits take no arguments
    assert not ran(place)


@pytest.mark.parametrize("key", sorted(PARTS))
@pytest.mark.parametrize("how", ["class", "dotted", "text", "file"])
def test_nor_is_a_part_of_the_configuration(how: str, key: str, place: Path) -> None:
    name = {"class_path": "stranger.Shapes", "init_args": {"size": 3}}
    write(place, name, "part.yaml")
    value: Any = {"class": name, "dotted": name, "text": str(name), "file": "part.yaml"}[how]
    outer, _, inner = key.rpartition(".")
    recipe = write(place, {outer: {inner: value}} if outer and how != "dotted" else {key: value})
    with pytest.raises(UserError, match=r"plain values|keys and values"):
        load_config(recipe)
    with pytest.raises(UserError, match=r"plain values|keys and values"):
        overridden(ExperimentConfig(), yaml.safe_load(Path(recipe).read_text()))
    parser = ArgumentParser(exit_on_error=False)
    add_experiment_flags(parser)
    for given in (recipe, Path(recipe).read_text()):
        with pytest.raises((UserError, ArgumentError)):
            parser.parse_args(["--config", given])
    assert not ran(place)
