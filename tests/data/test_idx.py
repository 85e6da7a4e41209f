import gzip
import struct
import tracemalloc

import numpy as np
import pytest
import torch

from dpap.data import DataConfig, load_data

IMAGES = "MNIST/raw/train-images-idx3-ubyte.gz"
LABELS = "MNIST/raw/train-labels-idx1-ubyte"


def load(root):
    return load_data(DataConfig(name="mnist", root=str(root)))


def test_reads_back_what_was_written(mnist_root):
    bundle = load(mnist_root)
    assert (bundle.input_shape, bundle.classes, len(bundle.train), len(bundle.test)) == (
        (1, 28, 28),
        10,
        40,
        20,
    )
    raw = gzip.decompress((mnist_root / IMAGES).read_bytes())
    x, y = next(bundle.train.batches(40))
    assert x.dtype == torch.float32 and y.dtype == torch.int64
    assert y.tolist() == [n % 10 for n in range(40)]
    for n, row, column in ((0, 0, 0), (7, 3, 20), (39, 27, 27)):
        assert float(x[n, 0, row, column]) == pytest.approx(raw[16 + n * 784 + row * 28 + column] / 255)
    assert "40 + 20 samples of the published 60000 + 10000" in bundle.describe()


def test_layouts(mnist_root, monkeypatch):
    expected = load(mnist_root).train.labels
    assert torch.equal(load(mnist_root / "MNIST" / "raw").train.labels, expected)
    (mnist_root / "MNIST").rename(mnist_root / "FashionMNIST")
    with pytest.raises(FileNotFoundError, match="mnist is expected as"):
        load(mnist_root)
    monkeypatch.setenv("DPAP_DATA", str(mnist_root))
    assert torch.equal(load_data(DataConfig(name="fashion_mnist")).train.labels, expected)


def test_no_root(monkeypatch):
    monkeypatch.delenv("DPAP_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"data\.root or the environment variable DPAP_DATA"):
        load_data(DataConfig(name="mnist"))
    with pytest.raises(FileNotFoundError, match="/nowhere is not a folder"):
        load("/nowhere")


def test_a_missing_file_is_named(mnist_root):
    (mnist_root / LABELS).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"train-labels-idx1-ubyte.gz is missing; .* downloaded from http"
    ):
        load(mnist_root)


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        (LABELS, lambda raw: b"\0\0\x09\1" + raw[4:], "must start with the IDX magic 00000801; got 00000901"),
        (LABELS, lambda raw: b"", "must start with the IDX magic"),
        (LABELS, lambda raw: raw[:6], "ends in its header of 8 bytes, at 6"),
        (LABELS, lambda raw: raw[:-1], r"must hold 48 bytes .* got 47"),
        (LABELS, lambda raw: raw + b"\0", r"must hold 40 bytes .* got more"),
        (LABELS, lambda raw: raw[:-1] + b"\x0a", "labels below 10; got 10"),
        (LABELS, lambda raw: raw[:7] + b"\x27" + raw[8:-1], "got 40 images and 39 labels"),
        (IMAGES, lambda raw: raw[:-20], "is not a whole gzip file"),
        (IMAGES, lambda raw: raw[:2000] + bytes(500) + raw[2500:], "is not a whole gzip file"),
        (IMAGES, lambda raw: b"no gzip at all", "is not a whole gzip file"),
    ],
)
def test_damage_is_named(mnist_root, file, damage, message):
    path = mnist_root / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        load(mnist_root)
    assert str(path) in str(caught.value) and "downloaded from http" in str(caught.value)


def test_other_sizes_are_refused(mnist_root, formats):
    (mnist_root / IMAGES).write_bytes(gzip.compress(formats.idx_bytes(np.zeros((40, 27, 28), np.uint8))))
    with pytest.raises(ValueError, match=r"images of \(28, 28\); got \(27, 28\)"):
        load(mnist_root)


@pytest.mark.parametrize("promised", [40, 30_000, 2**32 - 1])
def test_a_file_that_unpacks_to_a_thousand_times_its_size_is_not_unpacked(mnist_root, promised):
    path = mnist_root / IMAGES
    header = b"\0\0\x08\3" + struct.pack(">3I", promised, 28, 28)
    path.write_bytes(gzip.compress(header + bytes(784 * 30_000), 9))
    assert path.stat().st_size < 30_000
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"got more|more than 8 times as many: .*gunzip") as caught:
            load(mnist_root)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)


def test_a_header_is_not_believed(mnist_root):
    path = mnist_root / LABELS
    path.write_bytes(path.read_bytes()[:4] + b"\xff\xff\xff\xff" + bytes(40))
    with pytest.raises(ValueError, match="must hold 4294967303 bytes by its header; got 48"):
        load(mnist_root)


def test_files_that_pack_well_are_read(mnist_root, formats):
    (mnist_root / IMAGES).write_bytes(gzip.compress(formats.idx_bytes(np.zeros((40, 28, 28), np.uint8))))
    assert len(load(mnist_root).train) == 40
