"""MNIST and Fashion-MNIST: IDX files, gzip or not (format: https://yann.lecun.com/exdb/mnist)."""

import struct
from io import BufferedIOBase
from math import prod
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from dpap.data.config import DataConfig
from dpap.data.download import remotes
from dpap.data.source import Source
from dpap.data.split import TensorSplit
from dpap.data.transform import Augmentation

UNSIGNED_BYTE = 0x08


def read_idx(path: Path, source: Source, dimensions: int) -> UInt8[np.ndarray, "*shape"]:
    """The array of bytes in an IDX file: 0, 0, type, number of dimensions, each dimension big-endian, data.

    Raises:
        FileNotFoundError, ValueError: the file is missing; magic number, dimensions or length are wrong.
    """
    magic = bytes([0, 0, UNSIGNED_BYTE, dimensions])
    header = len(magic) + 4 * dimensions
    with source.open(path) as file:
        start = file.read(header)
        if start[:4] != magic:
            raise ValueError(
                f"{path} must start with the IDX magic {magic.hex()}; got {start[:4].hex()}; {source.advice}"
            )
        if len(start) < header:
            raise ValueError(f"{path} ends in its header of {header} bytes, at {len(start)}; {source.advice}")
        shape = struct.unpack(f">{dimensions}I", start[4:])
        sides = source.shape[1:] if dimensions > 1 else ()
        if shape[1:] != sides:
            raise ValueError(f"{path} must hold images of {sides}; got {shape[1:]}; {source.advice}")
        source.check_size(path, header + prod(shape))
        values = np.empty(shape, np.uint8)
        got = _fill(values, file)
        if got < values.size or file.read(1):
            raise ValueError(
                f"{path} must hold {values.size} bytes after its header, for dimensions {list(shape)}; "
                f"got {got if got < values.size else 'more'}; {source.advice}"
            )
    return values


def _fill(values: UInt8[np.ndarray, "..."], file: BufferedIOBase) -> int:
    """Read the bytes of an array, and return how many there were."""
    rest, got = values.reshape(-1).data, 0
    while got < len(rest) and (number := file.readinto(rest[got:])):
        got += number
    return got


def _read_part(source: Source, config: DataConfig, folder: Path, part: str) -> TensorSplit:
    paths = []
    for kind in ("images-idx3", "labels-idx1"):
        plain = folder / f"{part}-{kind}-ubyte"
        paths.append(plain if plain.exists() else plain.with_name(f"{plain.name}.gz"))
    images, labels = read_idx(paths[0], source, 3), read_idx(paths[1], source, 1)
    if len(images) != len(labels) or len(images) == 0:
        raise ValueError(
            f"{paths[0]} and {paths[1]} must hold equally many samples, at least one; "
            f"got {len(images)} images and {len(labels)} labels; {source.advice}"
        )
    if labels.max() >= source.classes:
        raise ValueError(
            f"{paths[1]} must hold labels below {source.classes}; got {labels.max()}; {source.advice}"
        )
    return TensorSplit.of(
        torch.from_numpy(images)[:, None], torch.from_numpy(labels).long(), source.image_converter(config)
    )


def read_mnist_like(source: Source, config: DataConfig) -> tuple[TensorSplit, TensorSplit]:
    """Training and test images from ROOT/<torchvision's name>/raw or ROOT."""
    torchvision_name = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[source.name]
    folder = source.find(
        config, [f"{torchvision_name}/raw", torchvision_name, "."], "train-images-idx3-ubyte*"
    )
    return _read_part(source, config, folder, "train"), _read_part(source, config, folder, "t10k")


MNIST = Source(
    name="mnist",
    what="28x28 handwritten digits",
    homepage="https://yann.lecun.com/exdb/mnist",
    layout="{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz] in ROOT/MNIST/raw, ROOT/MNIST or ROOT",
    shape=(1, 28, 28),
    classes=10,
    published=(60000, 10000),
    events=False,
    augmentation=Augmentation(pad=2, flip=False),
    reader=read_mnist_like,
    statistics=((0.1307,), (0.3081,)),
    files=remotes(
        "MNIST/raw",
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
            "https://yann.lecun.com/exdb/mnist",
        ),
    ),
)

FASHION_MNIST = Source(
    name="fashion_mnist",
    what="28x28 pictures of clothing",
    homepage="https://github.com/zalandoresearch/fashion-mnist",
    layout="{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz] "
    "in ROOT/FashionMNIST/raw, ROOT/FashionMNIST or ROOT",
    shape=(1, 28, 28),
    classes=10,
    published=(60000, 10000),
    events=False,
    augmentation=Augmentation(pad=2, flip=True),
    reader=read_mnist_like,
    statistics=((0.2860,), (0.3530,)),
    files=remotes(
        "FashionMNIST/raw",
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
        ),
    ),
    class_names=(
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
)
