"""Gates are found where many sources meet: beside one pass a source."""

import pytest
import torch
from torch import Tensor, nn

from dpap.anatomy.staining.dye import Site
from dpap.anatomy.staining.stain import stain


class Gated(nn.Module):
    """Blocks that add to a stream; some scale it as well, by units of their own."""

    def __init__(self, scales: list[bool], width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Linear(3, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in scales)
        self.scale = nn.ModuleDict(
            {str(k): nn.Linear(width, width) for k, scaled in enumerate(scales) if scaled}
        )
        self.head = nn.Linear(width, 2)

    def forward(self, given: Tensor) -> Tensor:
        stream = self.stem(given)
        for number, block in enumerate(self.blocks):
            stream = stream + block(stream.relu())
            if str(number) in self.scale:
                stream = stream * self.scale[str(number)](stream)
        output: Tensor = self.head(stream)
        return output


@pytest.mark.parametrize("scales", [[False] * 12, [True] * 3, [k in (2, 7) for k in range(12)], [True]])
def test_what_scales_the_stream_gates_what_reads_it_until_something_is_added(scales: list[bool]) -> None:
    torch.manual_seed(0)
    gates = stain(Gated(scales), (torch.rand(2, 3),)).gates
    readers = [f"blocks.{number}" for number in range(1, len(scales))] + ["head"]
    expected = {
        Site(reader): {f"scale.{number}"}
        for number, (reader, scaled) in enumerate(zip(readers, scales, strict=True))
        if scaled
    }
    assert {site: set(found) for site, found in gates.items()} == expected
    assert all(bool(where.all()) for found in gates.values() for where in found.values())


class Beside(nn.Module):
    """Adds to the network's own input, or scales it."""

    def __init__(self, scales: bool) -> None:
        super().__init__()
        self.scales, self.block, self.head = scales, nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, given: Tensor) -> Tensor:
        made = self.block(given)
        output: Tensor = self.head(given * made if self.scales else given + made)
        return output


@pytest.mark.parametrize("scales", [False, True])
def test_the_input_of_the_network_is_no_gate(scales: bool) -> None:
    torch.manual_seed(0)
    gates = stain(Beside(scales), (torch.rand(2, 4),)).gates
    assert {site: set(found) for site, found in gates.items()} == (
        {Site("head"): {"block"}} if scales else {}
    )
