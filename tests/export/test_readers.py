"""NIR files in other simulators: the same spikes, timestep by timestep."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dpap
from dpap.models import NetworkConfig, build_network
from support.small_digits import digits

nir = pytest.importorskip("nir")
pytest.importorskip("nirtorch")
pytestmark = [pytest.mark.usefixtures("unchecked"), pytest.mark.filterwarnings("ignore")]
STEPS = 5


def in_spikingjelly(path: Path) -> nn.Module:
    exchange = pytest.importorskip("spikingjelly.activation_based.nir_exchange")
    return exchange.import_from_nir(path, dt=1e-4)


def in_snntorch(path: Path) -> nn.Module:
    reader = pytest.importorskip("snntorch.import_nir")
    return reader.import_from_nir(nir.read(path))


def in_norse(path: Path) -> nn.Module:
    norse = pytest.importorskip("norse.torch")
    return norse.from_nir(nir.read(path), dt=1e-4, ignore_warnings=True)


def outputs(model: nn.Module, image: Tensor) -> Tensor:
    state: Any = None
    currents = []
    for _ in range(STEPS):
        current, state = model(image, state)
        currents.append(current)
    return torch.stack(currents)


@pytest.mark.parametrize(
    ("reader", "layers", "chosen", "settings"),
    [
        (in_spikingjelly, "8C3-BN-AvgPool2-20FC-10FC", {}, {}),
        (in_spikingjelly, "8C3-BN-AvgPool2-20FC-10FC", {"neuron": "plif", "tau": 2.6}, {}),
        (in_spikingjelly, "8C3-MaxPool2-20FC-10FC", {"neuron": "if"}, {"pool_spikes": True}),
        (in_spikingjelly, "resnet20", {"width": 0.25}, {}),
        (in_snntorch, "8C3-BN-AvgPool2-20FC-10FC", {}, {}),
        (in_snntorch, "8C3-BN-AvgPool2-20FC-10FC", {"neuron": "plif", "tau": 2.6}, {}),
        (in_snntorch, "resnet20", {"width": 0.25}, {}),
        (in_norse, "8C3-BN-AvgPool2-20FC-10FC", {}, {"sum_pooling": True}),
        (in_norse, "8C3-BN-AvgPool2-20FC-10FC", {"neuron": "plif", "tau": 2.6}, {"sum_pooling": True}),
        (in_norse, "8C3-MaxPool2-20FC-10FC", {"neuron": "if"}, {"pool_spikes": True, "sum_pooling": True}),
    ],
)
def test_the_same_spikes(
    reader: Callable[[Path], nn.Module],
    layers: str,
    chosen: dict,
    settings: dict,
    tmp_path: Path,
) -> None:
    # neurons at the output, so that what is compared are spikes
    config = NetworkConfig(layers, timesteps=STEPS, readout="rate", **chosen)
    model = build_network(config, (1, 8, 8))
    nn.init.normal_(model.fc2.weight if hasattr(model, "fc2") else model.fc.weight, std=1.0)
    image = 4 * digits(32, 8)[0]
    path = dpap.export_nir(model, image, tmp_path / "small.nir", **settings).path
    seen: list[Tensor] = []
    last = list(model.children())[-1]
    handle = last.register_forward_hook(lambda module, args, spikes: seen.append(spikes))
    with torch.no_grad():
        model.eval()(image)
        handle.remove()
        found = outputs(reader(path), image)
    assert 0.01 < seen[0].mean() < 0.99
    assert torch.equal(found, seen[0])
