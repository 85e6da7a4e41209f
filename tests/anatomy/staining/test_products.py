"""Products that a network makes by itself are those of torch, whether they are made anew or not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dpap.anatomy.staining.products import Products


def _passes(
    forward: Callable[[Tensor], Tensor], given: list[Tensor], products: Products | None
) -> list[Tensor]:
    made = []
    with torch.no_grad():
        for one in given:
            if products is None:
                made.append(forward(one))
                continue
            with products.within_pass():
                made.append(forward(one))
    return made


class Projected(nn.Module):
    """A weight that no weight layer holds, used twice in a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 5))
        self.bias = nn.Parameter(torch.randn(5))

    def forward(self, given: Tensor) -> Tensor:
        return functional.linear(functional.linear(given, self.weight, self.bias).relu(), self.weight)


def _attention(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(6, 2, batch_first=True, **options).eval()

    class Attended(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = layer

        def forward(self, given: Tensor) -> Tensor:
            output: Tensor = self.attention(given, given, given, need_weights=False)[0]
            return output

    return Attended()


def _dyed(given: Tensor, *places: Any) -> Tensor:
    given = given.clone()
    for place in places:
        given[place] = torch.nan
    return given


@pytest.mark.parametrize(
    "make", [Projected, _attention, lambda: _attention(bias=False), lambda: _attention(kdim=6)]
)
def test_outputs_are_those_without_it(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = make()
    width = 5 if isinstance(model, Projected) else 6
    clean = torch.randn(3, 4, width)
    given = [
        clean,
        clean,
        _dyed(clean, (0, 1, 2)),
        _dyed(clean, slice(None)),
        _dyed(clean, (slice(None), slice(None), 0)),
        clean + 1,
        clean,
    ]
    products = Products()
    for one, other in zip(_passes(model, given, products), _passes(model, given, None), strict=True):
        assert torch.equal(torch.isnan(one), torch.isnan(other))
        torch.testing.assert_close(one, other, equal_nan=True)


def test_what_was_made_of_the_same_values_is_not_made_again() -> None:
    model, made = Projected(), []

    class Counting(Products):
        def _keep(self, *given: Any) -> None:
            made.append(given)
            super()._keep(*given)

    clean = torch.randn(2, 5)
    _passes(model, [clean, clean, _dyed(clean, (0, 0)), clean + 1, clean + 1], Counting())
    assert len(made) == 4  # both products of the first and of another input, and none with dye


def test_a_parameter_that_changed_is_another() -> None:
    model, products, clean = Projected(), Products(), torch.randn(2, 5)

    def change() -> None:
        model.bias.add_(1)

    def replace() -> None:
        model.weight.data = torch.zeros_like(model.weight)

    for step in (lambda: None, change, replace):
        with torch.no_grad():
            step()
        torch.testing.assert_close(_passes(model, [clean], products), _passes(model, [clean], None))


def test_what_is_drawn_is_drawn_anew() -> None:
    model, clean = _attention(dropout=0.5).train(), torch.randn(2, 3, 6)
    torch.manual_seed(0)
    one, other = _passes(model, [clean, clean], Products())
    torch.manual_seed(0)
    for made, expected in zip((one, other), _passes(model, [clean, clean], None), strict=True):
        assert torch.equal(made, expected)
    assert not torch.equal(one, other)


def test_it_is_off_after_a_pass_without_any() -> None:
    clean, seen = torch.randn(2, 5), []

    class Watching(Products):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return super().__torch_function__(func, types, args, kwargs)

    products = Watching()
    _passes(torch.relu, [clean], products)
    assert seen
    seen.clear()
    _passes(torch.relu, [clean], products)
    assert not seen


@pytest.mark.parametrize("keys", [1, 4, 49])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("dyed", ["query", "key"])
def test_attention_passes_dye_on_however_few_keys_there_are(keys: int, dropout: float, dyed: str) -> None:
    sizes = {"query": 16, "key": keys, "value": keys}
    given = {name: torch.randn(2, 1, size, 8) for name, size in sizes.items()}
    given[dyed][..., 3] = torch.nan
    with Products().within_pass():
        made = functional.scaled_dot_product_attention(**given, dropout_p=dropout)
    assert bool(made.isnan().all())
