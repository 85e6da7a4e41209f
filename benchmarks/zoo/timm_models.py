"""Networks of timm, the smallest of each family."""

import importlib
from functools import partial

import torch
from networks import load_torchvision

from zoo.measure import Example, Maker

PACKAGE = "timm"
NAMES = (
    "resnet18", "resnet26d", "legacy_seresnet18", "resnext26ts", "res2net50_26w_4s", "resnest14d", "efficientnet_b0",
    "mobilenetv3_small_050", "ghostnet_050", "mnasnet_small", "densenet121", "dla34", "hrnet_w18_small",
    "regnetx_002", "regnety_002", "repvgg_a0", "nf_regnet_b0", "cspresnet50", "dpn68", "vovnet39a",
    "convnext_atto", "convnextv2_atto", "poolformer_s12", "edgenext_xx_small", "mobilevit_xxs", "fastvit_t8",
    "mobileone_s0", "inception_next_tiny", "focalnet_tiny_srf", "efficientvit_b0", "hardcorenas_a", "tinynet_e",
    "lcnet_050", "selecsls42", "skresnet18", "vit_tiny_patch16_224", "deit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224", "mixer_s32_224", "resmlp_12_224", "gmlp_ti16_224", "levit_128s",
    "xcit_nano_12_p16_224", "coat_lite_tiny", "cait_xxs24_224", "pvt_v2_b0", "twins_pcpvt_small", "tnt_s_patch16_224",
    "crossvit_tiny_240", "visformer_tiny", "beit_base_patch16_224", "convmixer_768_32",
)  # fmt: skip


def load() -> None:
    """Import the package."""
    load_torchvision()
    importlib.import_module("timm")


def make(name: str) -> Example:
    """A network and two images: small ones where it takes any size."""
    load_torchvision()
    timm = importlib.import_module("timm")
    takes = timm.get_pretrained_cfg(name)
    side = takes.input_size[-1] if takes.fixed_input_size else 64
    return timm.create_model(name, num_classes=10), (torch.rand(2, 3, side, side),)


NETWORKS: dict[str, Maker] = {f"timm {name}": partial(make, name) for name in NAMES}
