import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dpap.models.pooling import AvgPool


@given(
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(1, 3),
    st.integers(0, 7),
    st.integers(0, 7),
    st.sampled_from([torch.contiguous_format, torch.channels_last]),
)
def test_equals_torch_forwards_and_backwards(size, batch, channels, extra_height, extra_width, layout):
    shape = (batch, channels, size + extra_height, size + extra_width)
    maps = torch.randn(shape, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    result, expected = AvgPool(size)(maps), nn.AvgPool2d(size)(maps)
    torch.testing.assert_close(result, expected)
    weight = torch.randn_like(result)
    torch.testing.assert_close(
        *(torch.autograd.grad((pooled * weight).sum(), maps)[0] for pooled in (result, expected))
    )


def test_is_an_average_pool_by_its_type():
    assert isinstance(AvgPool(2), nn.AvgPool2d)
