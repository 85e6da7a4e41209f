"""scikit-learn's digits: 1,797 real handwritten digits, installed with the package."""

import torch

from dpap.data.config import DataConfig
from dpap.data.partition import share
from dpap.data.source import Source
from dpap.data.split import TensorSplit
from dpap.data.transform import Augmentation

TEST_SAMPLES = 360
INK = 16  # pixels count the inked points of a 4x4 square


def read_digits(source: Source, config: DataConfig) -> tuple[TensorSplit, TensorSplit]:
    """1,437 training and 360 test samples, stratified, the same for every configuration."""
    # imported here: it takes a second that runs on other data need not pay
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).to(torch.uint8).reshape(-1, 1, 8, 8)
    whole = TensorSplit.of(images, torch.from_numpy(labels).long(), source.image_converter(config))
    test, train = share(whole.labels, TEST_SAMPLES, seed=0)
    return whole.subset(train), whole.subset(test)


DIGITS = Source(
    name="digits",
    what="8x8 handwritten digits, small enough to ship with scikit-learn",
    homepage="https://archive.ics.uci.edu/dataset/80 (already installed with scikit-learn)",
    layout="nothing on disk",
    shape=(1, 8, 8),
    classes=10,
    published=(1437, 360),
    events=False,
    augmentation=Augmentation(pad=1, flip=False),
    reader=read_digits,
    statistics=((0.3057,), (0.3760,)),
    full=INK,
)
