"""Torch-Pruning as an independent oracle: the same channels removed leave the same network.

It traces the graph and has a rule for each operation; we stain. It finds which channels of which layers go
together and removes them; the same units die in a copy and are removed by our surgery.
"""

import copy
from collections.abc import Callable

import pytest
import torch
import torch_pruning as tp
from torch import Tensor, nn

from dpap.anatomy import find_wiring
from dpap.models import NetworkConfig, build_network
from dpap.surgery import Masks, Silence
from dpap.surgery.compact import remove_dead
from support.networks import Residual


class Dense(nn.Module):
    """Every convolution reads the outputs of all before it; each has a normalisation of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 6 * number) for number in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(8 + 6 * number, 6, 3, padding=1) for number in range(3))
        self.acts = nn.ModuleList(nn.ReLU() for _ in range(3))
        self.relu, self.last, self.head = nn.ReLU(), nn.Conv2d(26, 12, 1), nn.Linear(12, 4)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        for norm, act, conv in zip(self.norms, self.acts, self.convs, strict=True):
            features = torch.cat([features, conv(act(norm(features)))], 1)
        return self.head(self.relu(self.last(features)).mean((2, 3)))


class Depthwise(nn.Module):
    """Wider, depthwise, narrow again, as in MobileNets."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.norm = nn.Conv2d(3, 12, 1), nn.BatchNorm2d(12)
        self.each, self.narrow = nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.Conv2d(12, 6, 1)
        self.one, self.two, self.three = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.head = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        wide = self.two(self.each(self.one(self.norm(self.expand(images)))))
        return self.head(self.three(self.narrow(wide)).mean((2, 3)))


def preset(layers: str, channels: int, side: int, width: float) -> tuple[nn.Module, Tensor]:
    config = NetworkConfig(layers, neuron="relu", width=width)
    return build_network(config, (channels, side, side)), torch.randn(2, channels, side, side)


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "2Conv2FC": lambda: preset("ann_2conv2fc", 1, 28, 0.5),
    "VGG16": lambda: preset("vgg16", 3, 32, 0.125),
    "ResNet-18": lambda: preset("resnet18", 3, 64, 0.125),
    "residual and concatenated": lambda: (Residual(), torch.randn(2, 2, 8, 8)),
    "dense": lambda: (Dense(), torch.randn(2, 3, 8, 8)),
    "depthwise": lambda: (Depthwise(), torch.randn(2, 3, 8, 8)),
}


def removed_by_the_oracle(model: nn.Module, example: Tensor) -> dict[str, list[int]]:
    """Remove a random third of the channels of every group of layers; returns which units of which layers."""
    names = {module: name for name, module in model.named_modules()}
    graph = tp.DependencyGraph().build_dependency(model, example)
    output = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    dead: dict[str, list[int]] = {}
    done: set[nn.Module] = set()
    groups = list(graph.get_all_groups(ignored_layers=[output], root_module_types=[nn.Conv2d, nn.Linear]))
    for root in groups:
        module, remove = root[0].dep.target.module, root[0].dep.handler
        if module in done:
            continue
        units = len(root[0].idxs)
        chosen = torch.randperm(units)[: max(units // 3, 1)].sort().values.tolist()
        group = graph.get_pruning_group(module, remove, idxs=chosen)
        for dependency, indices in group:
            layer = dependency.target.module
            if isinstance(layer, nn.Conv2d | nn.Linear) and graph.is_out_channel_pruning_fn(
                dependency.handler
            ):
                done.add(layer)
                if not (isinstance(layer, nn.Conv2d) and layer.groups > 1):
                    dead[names[layer]] = sorted(set(indices))
        group.prune()
    return dead


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_channels_leave_the_same_network(name: str) -> None:
    torch.manual_seed(0)
    model, example = NETWORKS[name]()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, std=0.5)
            nn.init.normal_(module.running_mean, std=0.2)
    model.double().eval()
    example = example.double()
    theirs, ours = copy.deepcopy(model), copy.deepcopy(model)
    dead = removed_by_the_oracle(theirs, example)
    wiring = find_wiring(ours, (example,))
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    assert dead.keys() == masks.units.keys()
    for layer, units in dead.items():
        masks.units[layer][units] = False
    Silence(ours, wiring, ()).impose(masks)
    remove_dead(ours, wiring, masks, (), (example,))
    shapes = [
        {parameter: tuple(value.shape) for parameter, value in network.named_parameters()}
        for network in (ours, theirs)
    ]
    assert shapes[0] == shapes[1]
    assert sum(p.numel() for p in ours.parameters()) < 0.75 * sum(p.numel() for p in model.parameters())
    fresh = torch.randn_like(example)
    torch.testing.assert_close(ours(fresh), theirs(fresh))
