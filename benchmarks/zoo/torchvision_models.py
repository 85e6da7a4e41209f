"""Networks of torchvision."""

from functools import partial

import torch
from networks import load_torchvision

from zoo.measure import Example, Maker

PACKAGE = "torchvision"
SIDES = {"googlenet": 64, "inception_v3": 96, "vit_b_16": 224, "maxvit_t": 224}
NAMES = (
    "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "alexnet", "vgg11_bn", "squeezenet1_1",
    "densenet121", "googlenet", "inception_v3", "mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5",
    "shufflenet_v2_x0_5", "efficientnet_b0", "efficientnet_v2_s", "regnet_y_400mf", "regnet_x_400mf",
    "convnext_tiny", "vit_b_16", "swin_t", "maxvit_t",
)  # fmt: skip


def load() -> None:
    """Import the package."""
    load_torchvision()


def make(name: str) -> Example:
    """A network and two images."""
    models = load_torchvision().models
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    side = SIDES.get(name, 64)
    return getattr(models, name)(**options), (torch.rand(2, 3, side, side),)


def video(name: str) -> Example:
    """A network of films and a short one."""
    return getattr(load_torchvision().models.video, name)(), (torch.rand(1, 3, 8, 32, 32),)


def segmentation(name: str) -> Example:
    """A network that labels every pixel, and two images."""
    models = load_torchvision().models.segmentation
    return getattr(models, name)(weights=None, weights_backbone=None), (torch.rand(2, 3, 64, 64),)


NETWORKS: dict[str, Maker] = {
    **{f"torchvision {name}": partial(make, name) for name in NAMES},
    "torchvision r3d_18": partial(video, "r3d_18"),
    "torchvision lraspp_mobilenet_v3_large": partial(segmentation, "lraspp_mobilenet_v3_large"),
    "torchvision fcn_resnet50": partial(segmentation, "fcn_resnet50"),
    "torchvision deeplabv3_resnet50": partial(segmentation, "deeplabv3_resnet50"),
}
