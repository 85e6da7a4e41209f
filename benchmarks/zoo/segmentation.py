"""Networks of segmentation-models-pytorch on a ResNet-18."""

import importlib
from functools import partial

import torch
from networks import load_torchvision

from zoo.measure import Example, Maker

PACKAGE = "segmentation-models-pytorch"
NAMES = (
    "Unet",
    "UnetPlusPlus",
    "MAnet",
    "Linknet",
    "FPN",
    "PSPNet",
    "PAN",
    "DeepLabV3Plus",
    "UPerNet",
    "Segformer",
)


def load() -> None:
    """Import the package."""
    load_torchvision()
    importlib.import_module("segmentation_models_pytorch")


def make(name: str) -> Example:
    """A network and two images."""
    load_torchvision()
    models = importlib.import_module("segmentation_models_pytorch")
    side = 128 if name == "PAN" else 64
    network = getattr(models, name)("resnet18", encoder_weights=None, classes=2)
    return network, (torch.rand(2, 3, side, side),)


NETWORKS: dict[str, Maker] = {f"smp {name}": partial(make, name) for name in NAMES}
