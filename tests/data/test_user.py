import random

import numpy as np
import pytest
import torch

from dpap.data import DataConfig, check_data, load_data
from dpap.data.user import kept_random_numbers

NOISY = """
import random
import numpy as np
import torch

class Noisy(torch.utils.data.Dataset):
    def __init__(self, train, size=12, shape=(1, 4, 4)):
        self.size, self.shape, self.offset = (size if train else 5), shape, 0 if train else 100

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        x = torch.full(self.shape, float(i + self.offset))
        x[..., 0, 0] = torch.rand(())
        x[..., 0, 1] = random.random()
        x[..., 0, 2] = float(np.random.rand())
        return x, i % 3

class Named(Noisy):
    classes = ["a", "b", "c", "d"]

    @property
    def targets(self):
        return [i % 3 for i in range(self.size)]

def pair(size):
    return Noisy(True, size), Noisy(False)

def single():
    return Noisy(True)

def number(train):
    return 3

def empty(train):
    return []

def broken(train):
    raise KeyError("no such file")

def listed(train, wrong="dtype"):
    good = torch.zeros(1, 4, 4)
    return [({"dtype": good.to(torch.uint8), "shape": torch.zeros(4, 4), "kind": 1.0, "label": good}[wrong],
             -1 if wrong == "label" else 0)]
"""


@pytest.fixture(autouse=True)
def own(module):
    module("own_data", NOISY)


def load(name, workers=0, **arguments):
    return load_data(DataConfig(name=f"own_data:{name}", workers=workers, arguments=arguments))


def test_a_class_is_called_for_training_and_test():
    bundle = load("Noisy", size=20)
    assert (len(bundle.train), len(bundle.test)) == (20, 5)
    assert (bundle.input_shape, bundle.classes, bundle.events) == ((1, 4, 4), 3, False)
    x, y = next(bundle.test.batches(5))
    assert x[:, 0, 3, 3].tolist() == [100, 101, 102, 103, 104] and y.tolist() == [0, 1, 2, 0, 1]


def test_a_factory_without_train_returns_both():
    assert len(load("pair", size=7).train) == 7
    with pytest.raises(
        TypeError, match=r"accepts no argument `train`, so it must return \(training set, test"
    ):
        load("single")


def test_classes_and_targets_are_taken_from_the_data_set():
    assert load("Named").classes == 4
    assert load("Named").train.labels.tolist() == [i % 3 for i in range(12)]


def test_events_come_time_first():
    bundle = load("Noisy", shape=(6, 2, 4, 4))
    assert (bundle.events, bundle.timesteps, bundle.input_shape) == (True, 6, (2, 4, 4))
    x, _ = next(bundle.train.batches(3, 0))
    assert x.shape == (6, 3, 2, 4, 4) and x.is_contiguous()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*suggested max number of worker:UserWarning")  # where there is one core
def test_the_seed_alone_decides_whatever_the_workers():
    def epoch(workers, seed):
        return [
            torch.cat([x.flatten(1), y[:, None]], 1) for x, y in load("Noisy", workers).train.batches(5, seed)
        ]

    first = torch.cat(epoch(0, 7))
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    assert torch.equal(first, torch.cat(epoch(0, 7)))
    assert torch.equal(first, torch.cat(epoch(2, 7)))
    other = torch.cat(epoch(0, 8))
    assert not torch.equal(first[:, -2], other[:, -2])
    assert len(first[:, 0].unique()) == 12, "every sample has random numbers of its own"
    assert sorted(first[:, -2].tolist()) == sorted(other[:, -2].tolist()) == list(range(12))


def test_batches_leave_the_run_s_random_numbers_alone():
    def states():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()  # noqa: NPY002

    split, before = load("Noisy").train, states()
    assert len(list(split.batches(5, 3))) == split.number_of_batches(5) == 3
    assert states() == before


def test_python_s_random_numbers_are_kept():
    """By itself, because beartype draws from them too."""
    before = random.getstate()
    with kept_random_numbers():
        random.seed(3)
    assert random.getstate() == before
    with pytest.raises(KeyError), kept_random_numbers():
        random.random()
        raise KeyError
    assert random.getstate() == before


@pytest.mark.parametrize("name", ["Noisy", "Named"])
def test_folds_validation_and_limits(name):
    config = DataConfig(name=f"own_data:{name}", folds=3, fold=1, validation=0.25, test_limit=4)
    bundle = load_data(config)
    assert (len(bundle.train), len(bundle.validation), len(bundle.test)) == (8, 3, 4)
    seen = [
        float(value)
        for split in (bundle.train, bundle.validation, bundle.test)
        for x, _ in split.batches(4, 0)
        for value in x[:, 0, 3, 3]
    ]
    assert len(set(seen)) == 15 and any(value >= 100 for value in seen)
    assert "own_data" in check_data(config)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("own_data:", ValueError, 'named "package.module:factory"'),
        ("no.such.module:Data", ValueError, "'no.such.module:Data' cannot be imported: ModuleNotFoundError"),
        ("no_such:Data", ValueError, "No module named 'no_such'; put the folder .* on PYTHONPATH"),
        ("own_data:Missing", ValueError, "cannot be imported: AttributeError: .*Missing"),
        ("own_data:Named.classes", ValueError, "must be a function or class that makes a data set; got list"),
        ("own_data:broken", ValueError, "failed: KeyError: 'no such file'"),
        ("own_data:number", TypeError, "made a int; a data set needs __len__ and __getitem__"),
        ("own_data:empty", ValueError, "made an empty data set"),
        ("own_data:pair", ValueError, "failed: TypeError: .*size"),
    ],
)
def test_what_cannot_be_made_is_named(name, kind, message):
    with pytest.raises(kind, match=message):
        load_data(DataConfig(name=name))


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        ("dtype", TypeError, "must be floating-point tensors; got torch.uint8"),
        ("kind", TypeError, "must be floating-point tensors; got float"),
        ("shape", ValueError, r"must be \[C, H, W\] or, of events, \[T, C, H, W\]; got \[4, 4\]"),
        ("label", ValueError, "class numbers count from 0; got -1"),
    ],
)
def test_wrong_samples_are_named(wrong, kind, message):
    with pytest.raises(kind, match=message):
        load("listed", wrong=wrong)


@pytest.mark.parametrize("option", ["augment", "randaugment", "erase", "normalise"])
def test_options_of_built_in_sets_are_refused(option):
    with pytest.raises(ValueError, match=f"{option} is for built-in data sets"):
        load_data(DataConfig(name="own_data:Noisy", **{option: True}))
