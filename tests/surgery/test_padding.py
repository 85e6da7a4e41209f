from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dpap
from dpap.models import NetworkConfig, build_network
from dpap.surgery.padding import padded
from dpap.surgery.timesteps import BUFFER
from support.small_digits import digits


def build(layers: str, **chosen: object) -> nn.Module:
    return build_network(NetworkConfig(layers, timesteps=3, **chosen), (1, 8, 8))  # type: ignore[arg-type]


def pruned(model: nn.Module, images: Tensor, labels: Tensor, **chosen: object) -> nn.Module:
    """Two epochs of one batch, after which half of it is removed."""
    config = dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=2, **chosen)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner = dpap.Pruner(model, images[:8], optimizer, config)
    for _ in range(2):
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        pruner.step()
    pruner.compact()
    pruner.detach()
    return model.eval()


@pytest.mark.parametrize(
    ("layers", "chosen", "pruning"),
    [
        ("6C3-BN-AvgPool2-20FC-10FC", {"neuron": "relu"}, {}),
        ("6C3-BN-AvgPool2-20FC-10FC", {"neuron": "plif"}, {"timestep_target": 0.3}),
        ("resnet20", {"neuron": "relu", "width": 0.25}, {"synapses": False}),
    ],
)
def test_it_computes_what_the_compact_network_does_at_the_dense_size(
    layers: str, chosen: dict[str, object], pruning: dict[str, object]
) -> None:
    images, labels, *_ = digits(64)
    model = pruned(build(layers, **chosen), images, labels, **pruning)
    dense = build(layers, **chosen)
    shapes = [weights.shape for weights in dense.parameters()]
    assert sum(map(torch.Size.numel, shapes)) > sum(weights.numel() for weights in model.parameters())
    given = padded(model, dense, images[:8])
    assert given is dense
    assert [weights.shape for weights in given.parameters()] == shapes
    assert any(name.endswith(BUFFER) for name, _ in given.named_buffers()) is ("timestep_target" in pruning)
    expected = model.double()(images.double())
    torch.testing.assert_close(given.double()(images.double()), expected)


class SideBySide(nn.Module):
    """Two branches whose outputs lie behind each other."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(64, units), nn.Linear(64, units)
        self.last = nn.Linear(2 * units, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.last(torch.cat([self.one(x), self.other(x)], 1).relu())


def test_where_zeros_would_change_the_result_it_is_refused(tmp_path: Path) -> None:
    small = SideBySide(3).eval()
    with pytest.raises(dpap.CompactionError, match="computes something else"):
        padded(small, SideBySide(5), torch.rand(4, 1, 8, 8))
