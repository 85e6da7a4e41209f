import pytest
import torch

from dpap.data import DataConfig, check_data, load_data


def identities(split):
    """The pixels identify each training or test image of `mnist_root`."""
    x, _ = next(split.batches(100))
    return {tuple(image.flatten().tolist()) for image in x}


@pytest.fixture
def load(mnist_root):
    return lambda **options: load_data(DataConfig(name="mnist", root=str(mnist_root), **options))


def test_validation_is_disjoint_stratified_and_decided_by_the_seed(load):
    whole, cut = load(), load(validation=0.25)
    train, validation = identities(cut.train), identities(cut.validation)
    assert not train & validation and train | validation == identities(whole.train)
    assert torch.bincount(cut.validation.labels).tolist() == [1] * 10
    assert identities(load(validation=0.25).validation) == validation
    assert identities(load(validation=0.25, split_seed=1).validation) != validation
    assert identities(cut.test) == identities(whole.test)


def test_folds_are_disjoint_and_cover_training_and_test_samples(load):
    whole = load()
    everything = identities(whole.train) | identities(whole.test)
    bundles = [load(folds=5, fold=number) for number in range(5)]
    tests = [identities(bundle.test) for bundle in bundles]
    assert set.union(*tests) == everything and sum(map(len, tests)) == len(everything) == 60
    for bundle, test in zip(bundles, tests, strict=True):
        assert identities(bundle.train) == everything - test


def test_limits_are_stratified_and_come_before_validation(load):
    bundle = load(train_limit=20, test_limit=10, validation=0.5)
    assert (len(bundle.train), len(bundle.validation), len(bundle.test)) == (10, 10, 10)
    assert torch.bincount(bundle.test.labels).tolist() == [1] * 10
    assert torch.bincount(torch.cat([bundle.train.labels, bundle.validation.labels])).tolist() == [2] * 10
    assert len(load(train_limit=1000).train) == 40


def test_the_description_names_every_cut(load):
    text = load(folds=2, fold=1, train_limit=20, test_limit=5, validation=0.1).describe()
    for words in (
        "1x28x28",
        "18 training, 2 validation, 5 test",
        "fold 1 of 2",
        "limited to 20",
        "limited to 5",
    ):
        assert words in text


def test_check_reports_counts_and_values(mnist_root):
    text = check_data(DataConfig(name="mnist", root=str(mnist_root)))
    assert "training: 40 samples, of each class [4, 4, 4, 4, 4, 4, 4, 4, 4, 4]; values 0 to 1" in text


def test_check_refuses_what_training_would_fail_on(module):
    module(
        "bad_data",
        """
import torch
classes = 2
class Data:
    classes = ["a", "b"]
    def __init__(self, train, wrong):
        self.items = [(torch.zeros(1, 2, 2), 0), (torch.zeros(1, 2, 2), 1)]
        if wrong == "value":
            self.items[1] = (torch.full((1, 2, 2), float("nan")), 1)
        if wrong == "label":
            self.items[1] = (torch.zeros(1, 2, 2), 2)
        if wrong == "shape" and not train:
            self.items = [(torch.zeros(1, 3, 2), 0)]
    def __len__(self):
        return len(self.items)
    def __getitem__(self, i):
        return self.items[i]
""",
    )
    for wrong, message in (
        ("value", "training samples must be finite"),
        ("label", "training labels must lie in 0 to 1; got 0 to 2"),
        ("shape", r"must have one shape; got \[1, 2, 2\] and \[1, 3, 2\]"),
    ):
        with pytest.raises(ValueError, match=message):
            check_data(DataConfig(name="bad_data:Data", arguments={"wrong": wrong}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "imagenet"}, r'one of digits, mnist, .*, or "package.module:factory"; got \'imagenet\''),
        ({"arguments": {"a": 1}}, "arguments are for a data set of your own"),
        ({"validation": 0.0001}, "holds out 0 of 1437 training samples"),
        ({"folds": 2000}, "folds must not exceed the number of samples, 1797"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        load_data(DataConfig(**options))


def test_events_are_not_normalised(nmnist_root):
    with pytest.raises(ValueError, match="normalise is for images"):
        load_data(DataConfig(name="nmnist", root=str(nmnist_root), normalise=True))
