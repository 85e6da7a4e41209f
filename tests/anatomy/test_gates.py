"""Gates are found where many sources meet: beside one pass a source."""

import pytest
import torch
from torch import Tensor, nn

from dpap.anatomy.dye import Site
from dpap.anatomy.stain import stain


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
