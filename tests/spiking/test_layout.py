import pytest
import torch

from dpap.spiking.layout import arranged, sequence_like
from spiking.backends import channels_last, spread


@pytest.mark.parametrize("layout", [torch.clone, channels_last, spread])
def test_a_sequence_takes_the_layout_of_a_step(layout):
    step = layout(torch.randn(1, 2, 3, 4, 5))[0]
    sequence = torch.randn(6, 2, 3, 4, 5)
    result = arranged(sequence, step)
    assert torch.equal(result, sequence)
    assert result.stride() == sequence_like(step, 6, torch.float32).stride()
    assert result[0].stride() == torch.empty_like(step).stride()


def test_what_fits_is_not_copied():
    sequence = channels_last(torch.randn(6, 2, 3, 4, 5))
    assert arranged(sequence, sequence[0]) is sequence


def test_an_expanded_sequence_stays_expanded():
    step = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    result = arranged(torch.randn(2, 3, 4, 5).expand(6, 2, 3, 4, 5), step)
    assert result.stride(0) == 0 and result[0].stride() == step.stride()
