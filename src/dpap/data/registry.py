"""The data sets that a configuration can name."""

from dpap.data.cifar import CIFAR10
from dpap.data.digits import DIGITS
from dpap.data.gesture import DVS_GESTURE
from dpap.data.idx import FASHION_MNIST, MNIST
from dpap.data.nmnist import NMNIST
from dpap.data.source import Source

DATASETS: dict[str, Source] = {
    source.name: source for source in (DIGITS, MNIST, FASHION_MNIST, CIFAR10, NMNIST, DVS_GESTURE)
}


def list_datasets() -> tuple[Source, ...]:
    """Every built-in data set: name, what it is, where it can be downloaded, and the files expected."""
    return tuple(DATASETS.values())
