import pytest
from jsonargparse import auto_cli

from dpap.data import DataConfig


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"timesteps": 0}, "timesteps must be at least 1; got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"train_limit": 0}, "train_limit must be at least 1"),
        ({"downsample": 0}, "downsample must be at least 1"),
        ({"validation": 1.0}, "validation is a share"),
        ({"folds": 1}, "folds must be 0"),
        ({"folds": 5, "fold": 5}, "fold counts from 0"),
        ({"fold": 1}, "fold counts from 0"),
        ({"workers": -1}, "workers must be 0 or more"),
    ],
)
def test_values_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**wrong)


def test_every_field_is_a_flag():
    flags = ["--name=nmnist", "--timesteps=5", "--frames=binary", "--validation=0.1"]
    made = auto_cli(DataConfig, args=[*flags, '--arguments={"a": 1}'], as_positional=False)
    assert made == DataConfig(name="nmnist", timesteps=5, frames="binary", validation=0.1, arguments={"a": 1})
