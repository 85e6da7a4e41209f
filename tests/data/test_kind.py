from typing import Any

import pytest

from dpap.data import DataConfig, load_data
from dpap.data.kind import SampleKind, kind_of
from dpap.data.registry import DATASETS


@pytest.mark.parametrize("name", DATASETS)
def test_every_class_of_every_data_set_has_a_name(name: str) -> None:
    kind = kind_of(DataConfig(name=name))
    assert kind is not None
    names = [kind.name_of(number) for number in range(kind.classes)]
    assert len(set(names)) == kind.classes
    assert kind.class_names in ((), tuple(names))


@pytest.mark.parametrize(
    ("name", "options", "shape", "timesteps"),
    [
        ("digits", {}, (1, 8, 8), None),
        ("mnist", {"downsample": 2}, (1, 28, 28), None),
        ("cifar10", {}, (3, 32, 32), None),
        ("nmnist", {"timesteps": 5}, (2, 34, 34), 5),
        ("nmnist", {"downsample": 2}, (2, 17, 17), 8),
        ("dvs_gesture", {}, (2, 32, 32), 8),
        ("dvs_gesture", {"downsample": 2}, (2, 64, 64), 8),
    ],
)
def test_it_is_known_without_the_files(name: str, options: Any, shape: Any, timesteps: int | None) -> None:
    kind = kind_of(DataConfig(name=name, **options))
    assert kind is not None
    assert (kind.input_shape, kind.timesteps) == (shape, timesteps)


@pytest.mark.parametrize("fixture", ["mnist_root", "cifar_root", "nmnist_root"])
def test_it_is_that_of_the_files(fixture: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(fixture)
    name = {"cifar_root": "cifar10"}.get(fixture, fixture.removesuffix("_root"))
    config = DataConfig(name=name, root=str(root), cache=str(root / "cache"), timesteps=3)
    assert SampleKind.of(load_data(config)) == kind_of(config)


def test_names_of_a_data_set_of_ones_own(module: Any) -> None:
    module("named", "import torch\nclass Own:\n    targets = [0, 1]\n    def __len__(self): return 2\n"
           "    def __getitem__(self, i): return torch.rand(1, 4, 4), i\n"
           "class Named(Own):\n    classes = ['cat', 'dog']\n"
           "class Counted(Own):\n    classes = range(3)\n"
           "def named(): return Named(), Own()\ndef counted(): return Counted(), Own()")  # fmt: skip
    assert kind_of(DataConfig(name="named:named")) is None
    named = SampleKind.of(load_data(DataConfig(name="named:named")))
    assert (named.class_names, named.name_of(1)) == (("cat", "dog"), "dog")
    counted = SampleKind.of(load_data(DataConfig(name="named:counted")))
    assert (counted.classes, counted.class_names, counted.name_of(2)) == (3, (), "2")
