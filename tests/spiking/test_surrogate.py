import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpap.spiking import SURROGATES, ArcTan, Sigmoid, Triangle

surrogates = st.one_of(st.builds(kind, st.floats(0.25, 8)) for kind in (ArcTan, Sigmoid, Triangle))


@given(surrogates)
def test_derivative_is_that_of_the_primitive(surrogate):
    x = torch.linspace(-3, 3, 1001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(surrogate.primitive(x).sum(), x)
    torch.testing.assert_close(surrogate.derivative(x.detach()), slope, rtol=1e-9, atol=1e-12)


@given(surrogates)
def test_primitive_is_a_step_of_height_one_about_the_threshold(surrogate):
    far = torch.tensor([-1e9, 0.0, 1e9], dtype=torch.float64)
    torch.testing.assert_close(
        surrogate.primitive(far), torch.tensor([0, 0.5, 1], dtype=torch.float64), rtol=0, atol=1e-6
    )


@given(surrogates)
def test_area_is_one(surrogate):
    # sinh resolves the peak and the far tails alike
    x = torch.sinh(torch.linspace(-18, 18, 200_001, dtype=torch.float64))
    assert math.isclose(torch.trapezoid(surrogate.derivative(x), x), 1, rel_tol=1e-5)


@given(surrogates, st.floats(0.01, 10))
def test_chain_scales_and_overwrites(surrogate, scale):
    x = torch.linspace(-2, 2, 101, dtype=torch.float64)
    upstream = torch.randn(101, dtype=torch.float64)
    expected = scale * upstream * surrogate.derivative(x)
    result = surrogate.chain_(x, upstream, scale=scale)
    assert result is x
    torch.testing.assert_close(x, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("name", sorted(SURROGATES))
def test_parameter_must_be_positive(name, value):
    with pytest.raises(ValueError, match="positive"):
        SURROGATES[name](value)
