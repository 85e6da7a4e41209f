"""Networks of SpikingJelly's zoo, all timesteps at once, with weights so strong that they fire."""

import importlib
from functools import partial
from typing import Any

import torch
from networks import firing, load_torchvision, spikingjelly_csnn

from zoo.measure import Example, Maker

PACKAGE = "spikingjelly"
MODELS = "spikingjelly.activation_based.model"


def load() -> None:
    """Import the package; its models import torchvision."""
    load_torchvision()
    importlib.import_module(MODELS)


def _module(name: str) -> Any:
    load()
    return importlib.import_module(f"{MODELS}.{name}")


def _options(kind: str = "IFNode") -> dict[str, Any]:
    neuron = importlib.import_module("spikingjelly.activation_based.neuron")
    surrogate = importlib.import_module("spikingjelly.activation_based.surrogate")
    return {
        "spiking_neuron": getattr(neuron, kind),
        "surrogate_function": surrogate.ATan(),
        "detach_reset": True,
    }


def make(file: str, name: str, timesteps: int = 2, side: int = 32, **options: Any) -> Example:
    """A network in multi-step mode and two films of so many steps."""
    functional = importlib.import_module("spikingjelly.activation_based.functional")
    network = getattr(_module(file), name)(**_options(), **options)
    functional.set_step_mode(network, "m")
    return firing(network), (torch.rand(timesteps, 2, 3, side, side),)


def parametric(name: str, shape: tuple[int, int, int]) -> Example:
    """A network of the parametric LIF paper, with few channels."""
    functional = importlib.import_module("spikingjelly.activation_based.functional")
    network = getattr(_module("parametric_lif_net"), name)(channels=8, **_options("ParametricLIFNode"))
    functional.set_step_mode(network, "m")
    return firing(network, 16), (torch.rand(4, 2, *shape),)


def transformer(file: str, name: str, **options: Any) -> Example:
    """A spiking transformer."""
    return firing(getattr(_module(file), name)(**options), 16), (torch.rand(2, 2, 3, 32, 32),)


NETWORKS: dict[str, Maker] = {
    "SpikingJelly CSNN": partial(spikingjelly_csnn, 2, 16),
    "SpikingJelly spiking VGG-11": partial(make, "spiking_vgg", "spiking_vgg11_bn", num_classes=10),
    "SpikingJelly spiking ResNet-18": partial(make, "spiking_resnet", "spiking_resnet18", num_classes=10),
    "SpikingJelly SEW-ResNet-18": partial(make, "sew_resnet", "sew_resnet18", num_classes=10, cnf="ADD"),
    "SpikingJelly SEW-ResNet-18, AND": partial(make, "sew_resnet", "sew_resnet18", num_classes=10, cnf="AND"),
    "SpikingJelly MS-ResNet-18": partial(make, "ms_resnet", "ms_resnet18", num_classes=10),
    "SpikingJelly N-MNIST net": partial(parametric, "NMNISTNet", (2, 34, 34)),
    "SpikingJelly CIFAR-10 net": partial(parametric, "CIFAR10Net", (3, 32, 32)),
    "SpikingJelly Spikformer": partial(
        transformer, "spikformer", "spikformer_ti", T=2, img_size_h=32, img_size_w=32, num_classes=10
    ),
}
