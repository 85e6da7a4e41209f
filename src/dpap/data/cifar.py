"""CIFAR-10, the binary version (format: https://www.cs.toronto.edu/~kriz/cifar.html)."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from dpap.data.config import DataConfig
from dpap.data.download import Remote
from dpap.data.source import Source
from dpap.data.split import TensorSplit
from dpap.data.transform import Augmentation

RECORD = 1 + 3 * 32 * 32
TRAINING_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))


def read_records(path: Path, source: Source) -> UInt8[np.ndarray, "sample 3073"]:
    """Records of a label, then the red, green and blue plane of 32x32 pixels, row by row.

    Raises:
        FileNotFoundError, ValueError: the file is missing; its length or a label is wrong.
    """
    with source.open(path) as file:
        raw = file.read()
    if len(raw) == 0 or len(raw) % RECORD:
        raise ValueError(
            f"{path} must hold whole records of {RECORD} bytes; got {len(raw)} bytes; {source.advice}"
        )
    records = np.frombuffer(raw, np.uint8).reshape(-1, RECORD)
    if records[:, 0].max() >= source.classes:
        where = int(records[:, 0].argmax())
        raise ValueError(
            f"{path} must hold labels below {source.classes}; got {records[where, 0]} in record {where}; "
            f"{source.advice}"
        )
    return records


def read_cifar10(source: Source, config: DataConfig) -> tuple[TensorSplit, TensorSplit]:
    """Training and test images from ROOT/cifar-10-batches-bin or ROOT."""
    folder = source.find(config, ["cifar-10-batches-bin", "."], "*_batch*.bin")
    parts = []
    for names in (TRAINING_FILES, ("test_batch.bin",)):
        records = np.concatenate([read_records(folder / name, source) for name in names])
        images = torch.from_numpy(np.ascontiguousarray(records[:, 1:])).reshape(-1, *source.shape)
        labels = torch.from_numpy(records[:, 0].astype(np.int64))
        parts.append(TensorSplit.of(images, labels, source.image_converter(config)))
    return parts[0], parts[1]


CIFAR10 = Source(
    name="cifar10",
    what="32x32 colour pictures of ten kinds of things",
    homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
    layout="data_batch_{1..5}.bin and test_batch.bin (binary version) in ROOT/cifar-10-batches-bin or ROOT",
    shape=(3, 32, 32),
    classes=10,
    published=(50000, 10000),
    events=False,
    augmentation=Augmentation(pad=4, flip=True),
    reader=read_cifar10,
    statistics=((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    files=(
        Remote(
            path="cifar-10-binary.tar.gz",
            md5="c32a1d4ab5d03f1284b67883e8d87530",
            urls=(
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/cifar-10-binary.tar.gz",
            ),
            folder="cifar-10-batches-bin",
        ),
    ),
    class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)
