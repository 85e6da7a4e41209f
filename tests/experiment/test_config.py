from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentParser

from dpap.experiment.config import (
    NEVER_NULL,
    ExperimentConfig,
    TrainingConfig,
    add_experiment_flags,
    config_from,
    load_config,
)
from dpap.experiment.errors import UserError


def parsed(*flags: str) -> ExperimentConfig:
    parser = ArgumentParser(exit_on_error=False)
    add_experiment_flags(parser)
    return config_from(parser, parser.parse_args(list(flags)))


def test_yaml_out_is_yaml_in(tiny: Any, tmp_path: Path) -> None:
    config = tiny(
        seed=3,
        prune=False,
        protocol="paper",
        data={"arguments": {"noise": 1e-05, "names": ["a", "b"]}},
        training={"learning_rate": 1e-05, "gradient_clip": 2.0, "warmup_epochs": 0.5},
    )
    (tmp_path / "config.yaml").write_text(config.as_yaml())
    again = load_config(tmp_path / "config.yaml")
    assert again == config
    assert again.as_yaml() == config.as_yaml()


def test_what_a_file_leaves_out_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "part.yaml").write_text("training: {learning_rate: 1e-2}\n")
    assert load_config(tmp_path / "part.yaml") == ExperimentConfig(
        training=TrainingConfig(learning_rate=0.01)
    )


def test_flags_override_the_file_and_each_field_has_one(tmp_path: Path) -> None:
    (tmp_path / "part.yaml").write_text("network: {timesteps: 6, tau: 1.5}\nseed: 2\n")
    config = parsed(
        "--config", str(tmp_path / "part.yaml"), "--network.timesteps", "4", "--pruning.conv.eta", "7"
    )
    assert (config.network.timesteps, config.network.tau, config.seed) == (4, 1.5, 2)
    assert config.pruning.conv.eta == 7

    def flags(values: dict[str, Any], prefix: str = "--") -> list[str]:
        found: list[str] = []
        for key, value in values.items():
            nested = isinstance(value, dict) and value
            found += flags(value, f"{prefix}{key}.") if nested else [f"{prefix}{key}"]
        return found

    parser = ArgumentParser()
    add_experiment_flags(parser)
    text = parser.format_help()
    assert [flag for flag in flags(ExperimentConfig().as_dict()) if flag + " " not in text] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"network": {"timestep": 4}}, "timestep"),
        ({"training": {"epochs": "many"}}, "training.epochs"),
        ({"training": {"epochs": 2.5}}, "training.epochs"),
        ({"training": {"optimizer": "lion"}}, "optimizer"),
        ({"seeds": 4}, "seeds"),
        ({"training": {"epochs": 0}}, "at least 1"),
        ({"training": {"learning_rate": 0.0}}, "above 0"),
        ({"protocol": "validation"}, "data.validation"),
        ({"training": {"loss": "rate_mse"}}, "network.readout 'rate'"),
        ({"pruning": {"target": 0.5, "end_epoch": 99}}, "end_epoch"),
        ({"name": "a/b"}, "folder"),
    ],
)
def test_mistakes_are_named(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=message):
        load_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no configuration file .*nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")
    with pytest.raises(UserError, match=r"configuration: .*too long"):
        load_config(tmp_path / ("x" * 5000))


@pytest.mark.parametrize(
    "text",
    [
        "a: &a 1\n" + "".join(f"{new}: &{new} [{f'*{old}, ' * 10}]\n" for old, new in pairwise("abcdefgh")),
        "data:\n  arguments: &x {a: *x}\n",
        "data: {arguments: " + "{a: " * 30 + "1" + "}" * 31,
    ],
)  # fmt: skip
def test_a_few_lines_that_stand_for_billions_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(
        UserError, match=r"recipe\.yaml: a configuration has at most 10000 values, 20 levels deep"
    ):
        load_config(path)


@pytest.mark.parametrize("key", sorted(NEVER_NULL))
def test_null_where_a_value_is_needed_is_refused_with_what_is_expected(key: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"{key}: null\n")
    with pytest.raises(UserError, match=rf"{path}: {key}: expected .*; got null; leave it out"):
        load_config(path)
    nested: object = None
    for name in reversed(key.split(".")):
        nested = {name: nested}
    path.write_text(yaml.safe_dump(nested))
    with pytest.raises(UserError, match=rf"{path}: {key}: expected .*; got null; leave it out"):
        load_config(path)


def test_null_is_a_value_where_it_means_something(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "data: {root: null}\npruning: {target: null, gamma: null}\ntraining: {gradient_clip: null}\n"
    )
    config = load_config(path)
    assert (config.data.root, config.pruning.target, config.training.gradient_clip) == (None, None, None)
