"""Choices that cannot be are refused where they are made."""

import dataclasses

import pytest

from dpap.plasticity import CRITERIA
from dpap.pruning.config import Decay, PruningConfig


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"target": 1.0, "end_epoch": 3}, r"in \[0, 1\); got 1.0"),
        ({"timestep_target": -0.1, "end_epoch": 3}, "timestep_target"),
        ({"target": 0.5}, "needs end_epoch"),
        ({"target": 0.5, "end_epoch": 2, "start_epoch": 2}, "after start_epoch"),
        ({"start_epoch": -1}, "is a number of epochs, at least 0"),
        ({"observe_every": 0}, "at least 1"),
        ({"min_units": 0}, "at least 1"),
        ({"round_to": 0}, "round_to must be at least 1"),
        ({"trace_decay": 1.5}, r"trace_decay is .* in \[0, 1\]; got 1.5"),
        ({"gamma": -0.1}, r"gamma is .* in \[0, 1\]; got -0.1"),
        ({"clip": 0.0}, r"clip is a quantile, in \(0, 1\]; 1 clips nothing; got 0.0"),
    ],
)
def test_impossible_choices_say_what_is_wrong(choice: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PruningConfig(**choice)


def test_a_criterion_that_is_not_registered_is_refused(unchecked: None) -> None:
    known = ", ".join(CRITERIA)
    with pytest.raises(
        ValueError, match=f"one of {known}, or of your own, after .*register_criterion; got 'paper'"
    ):
        PruningConfig(criterion="paper")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("constant", "message"),
    [
        ({"eta": 0.0}, "above 0; got 0.0"),
        ({"eta": float("nan")}, "got nan"),
        ({"beta": -1.0}, "beta must be at least 0"),
        ({"protection": -2.0}, "protection must be at least 0; got -2.0"),
    ],
)
def test_impossible_constants_say_what_is_wrong(constant: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decay(**{"epsilon": 1.0, "eta": 12.0, "beta": 1.0, "protection": 2.0, **constant})


def test_a_timestep_target_prunes_timesteps() -> None:
    assert PruningConfig(timestep_target=0.5, end_epoch=4).prunes_timesteps
    assert PruningConfig(timesteps=True).prunes_timesteps
    assert not PruningConfig().prunes_timesteps


def test_it_can_be_written_down_as_plain_values() -> None:
    config = PruningConfig(target=0.5, end_epoch=4)
    values = config.as_dict()
    rebuilt = {
        name: type(getattr(config, name))(**value) if isinstance(value, dict) else value
        for name, value in values.items()
    }
    assert PruningConfig(**rebuilt) == config
    assert {field.name for field in dataclasses.fields(config)} == set(values)
