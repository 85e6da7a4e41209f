import pytest
import torch

from dpap.data import DataConfig, load_data


def load(root, **options):
    return load_data(DataConfig(name="cifar10", root=str(root), **options))


def test_reads_back_what_was_written(cifar_root):
    bundle = load(cifar_root)
    assert (bundle.input_shape, bundle.classes) == ((3, 32, 32), 10)
    assert (len(bundle.train), len(bundle.test)) == (40, 8)
    x, y = next(bundle.train.batches(40))
    assert y.tolist() == [n % 8 for n in range(40)]
    for n, channel, row, column in ((0, 0, 0, 0), (11, 1, 5, 30), (39, 2, 31, 31)):
        raw = (cifar_root / f"cifar-10-batches-bin/data_batch_{n // 8 + 1}.bin").read_bytes()
        byte = raw[n % 8 * 3073 + 1 + channel * 1024 + row * 32 + column]
        assert float(x[n, channel, row, column]) == pytest.approx(byte / 255)
    assert torch.equal(load(cifar_root / "cifar-10-batches-bin").train.labels, bundle.train.labels)


def test_normalised(cifar_root):
    x, _ = next(load(cifar_root).train.batches(40))
    normalised, _ = next(load(cifar_root, normalise=True).train.batches(40))
    assert float(normalised[3, 1, 4, 5]) == pytest.approx((float(x[3, 1, 4, 5]) - 0.4822) / 0.2435, abs=1e-5)


def test_only_training_samples_are_augmented(cifar_root):
    plain, augmented = load(cifar_root, validation=0.2), load(cifar_root, validation=0.2, augment=True)
    for part in ("train", "validation", "test"):
        x, y = next(getattr(plain, part).batches(40, 3))
        moved, same = next(getattr(augmented, part).batches(40, 3))
        assert torch.equal(y, same)
        assert torch.equal(x, moved) is (part != "train")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-1], "whole records of 3073 bytes; got 24583 bytes"),
        (lambda raw: b"", "got 0 bytes"),
        (lambda raw: raw[:3073] + b"\x0b" + raw[3074:], "labels below 10; got 11 in record 1"),
    ],
)
def test_damage_is_named(cifar_root, damage, message):
    path = cifar_root / "cifar-10-batches-bin" / "data_batch_4.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        load(cifar_root)
    assert str(path) in str(caught.value) and "cs.toronto.edu" in str(caught.value)


def test_a_missing_file_is_named(cifar_root):
    (cifar_root / "cifar-10-batches-bin" / "test_batch.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"test_batch\.bin is missing"):
        load(cifar_root)
