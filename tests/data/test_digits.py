import torch
from sklearn.datasets import load_digits

from dpap.data import DataConfig, load_data


def test_digits_are_those_of_scikit_learn():
    bundle = load_data(DataConfig())
    assert (bundle.input_shape, bundle.classes, bundle.events) == ((1, 8, 8), 10, False)
    assert (len(bundle.train), len(bundle.test), bundle.notes) == (1437, 360, ())
    pixels, labels = load_digits(return_X_y=True)
    expected = sorted(
        (*row, label) for row, label in zip((pixels / 16).tolist(), labels.tolist(), strict=True)
    )
    parts = [next(split.batches(2000)) for split in (bundle.train, bundle.test)]
    got = torch.cat([torch.cat([x.flatten(1), y[:, None].float()], 1) for x, y in parts])
    assert sorted(map(tuple, got.tolist())) == expected


def test_every_class_is_split_alike():
    bundle = load_data(DataConfig())
    whole = torch.bincount(torch.cat([bundle.train.labels, bundle.test.labels]))
    assert ((torch.bincount(bundle.test.labels) - whole * 360 / 1797).abs() < 1).all()


def test_split_is_the_same_for_every_seed():
    first, second = (load_data(DataConfig(split_seed=seed)).test.labels for seed in (0, 1))
    assert torch.equal(first, second)


def test_normalised_training_set_has_mean_0_and_deviation_1():
    x, _ = next(load_data(DataConfig(normalise=True)).train.batches(2000))
    assert abs(float(x.mean())) < 1e-3 and abs(float(x.std()) - 1) < 1e-3
