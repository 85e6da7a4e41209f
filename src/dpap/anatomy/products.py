"""Products that a network makes by itself, such as attention and its projections: they are not of weight layers, which
emit without running, so they would take most of the time of every pass over a transformer.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import Signature, signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from dpap.anatomy.pytrees import all_tensors, float_tensors, map_tensors, nan_like

MOST = 2**25
"""Values that are kept in all."""


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> None: ...


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> None: ...


_KEPT: dict[Callable[..., Any], Signature] = {
    functional.linear: signature(_linear),
    functional.scaled_dot_product_attention: signature(_attention),
    functional.multi_head_attention_forward: signature(functional.multi_head_attention_forward),
}
"""Function -> its parameters, which those of torch that are not written in Python do not tell."""
_OF_ALL = frozenset(
    (
        *(torch.matmul, torch.bmm, torch.einsum, torch.softmax, functional.softmax),
        *(Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.bmm, Tensor.softmax),
    )
)
"""Functions of which every number that they give depends on some number of each tensor that they take."""


@dataclass
class _Made:
    given: dict[str, Any]
    output: Any

    @property
    def size(self) -> int:
        return sum(tensor.numel() for tensor in all_tensors((self.given, self.output)))


class Products(TorchFunctionMode):
    """Within it, what was made before of the same values is not made again, and a product of nothing but dye is dye.

    Results are those of the functions themselves: activities are compared value by value, weights, which are the same
    in every pass, by where they lie; and NaN in a row of what is multiplied by a matrix is NaN in every place.
    """

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[tuple[Callable[..., Any], int], _Made] = {}
        self._calls: dict[Callable[..., Any], int] = {}
        self._values = 0
        self.keeps = False

    def begin(self, *, keeps: bool) -> None:
        """Begin a pass, whose calls are compared with those of earlier ones one by one.

        Args:
            keeps: whether what is made in it is kept; not where weight layers run too.
        """
        self._calls.clear()
        self.keeps = keeps

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        options = kwargs or {}
        given = _given(func, args, options)
        if given is None:
            return func(*args, **options)
        values = {name: _mark(value) for name, value in given.items()}
        call = self._calls[func] = self._calls.get(func, -1) + 1
        made = self._made.get((func, call))
        if made is not None and _same(values, made.given):
            return _copy(made.output)
        if func is functional.linear:
            output = _product(**given)
        elif func in _OF_ALL and any(_is_dye(tensor) for tensor in float_tensors(given)):
            return _dye_like_what_is_made(func, args, options)
        elif func not in _OF_ALL and _is_nothing_but_dye(given):
            return nan_like(given["query"]), None
        else:
            output = func(*args, **options)
        if self.keeps and not any(bool(torch.isnan(tensor).any()) for tensor in float_tensors(output)):
            self._keep((func, call), _Made(values, output))
        return output

    def _keep(self, key: tuple[Callable[..., Any], int], made: _Made) -> None:
        """Keep what was made last: most passes differ in what they dye, and alike in all that no dye reaches."""
        self._values -= self._made.pop(key).size if key in self._made else 0
        if self._values + made.size <= MOST:
            self._values += made.size
            self._made[key] = _Made(_copy(made.given), _copy(made.output))


def _given(func: Callable[..., Any], args: Any, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Arguments by name or place; None where the function is another one, a tensor is not plain, or something is drawn
    at random.
    """
    if func in _OF_ALL:
        given = {**{str(place): value for place, value in enumerate(args)}, **options}
    elif func in _KEPT:
        try:
            bound = _KEPT[func].bind(*args, **options)
        except TypeError:
            return None
        bound.apply_defaults()
        given = bound.arguments
    else:
        return None
    drawn = given.get("dropout_p", 0.0) > 0 and given.get("training", True)
    plain = all(type(each) in (Tensor, nn.Parameter) for each in all_tensors(given))
    return given if plain and not drawn else None


def _mark(value: Any) -> Any:
    """A value, or of a parameter what tells whether it is the same."""
    if isinstance(value, list | tuple):
        return [_mark(each) for each in value]
    if not isinstance(value, nn.Parameter):
        return value
    return "parameter", id(value), value.data_ptr(), value._version


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        if not isinstance(other, Tensor) or one.dtype != other.dtype or one.device != other.device:
            return False
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _copy(value: Any) -> Any:
    return map_tensors(value, lambda tensor: tensor.detach().clone())


def _product(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What `functional.linear` gives; rows with dye are not multiplied."""
    dyed = torch.isnan(input).any(-1) if input.ndim > 1 and weight.ndim > 1 else torch.zeros(())
    if not bool(dyed.any()):
        return functional.linear(input, weight, bias)
    output = torch.full((*input.shape[:-1], len(weight)), torch.nan, dtype=input.dtype, device=input.device)
    if not bool(dyed.all()):
        output[~dyed] = functional.linear(input[~dyed], weight, bias)
    return output


def _is_dye(tensor: Tensor) -> bool:
    """Whether a tensor holds nothing but dye; most that hold none are told by their first number."""
    if tensor.numel() == 0 or not bool(torch.isnan(tensor[(0,) * tensor.ndim])):
        return False
    return bool(torch.isnan(tensor).all())


def _dye_like_what_is_made(func: Callable[..., Any], args: Any, options: Any) -> Tensor:
    """Dye in the form of what a function gives, which is not computed."""
    device = next(all_tensors(args)).device
    form = func(*map_tensors(args, lambda tensor: tensor.to("meta")), **options)
    return nan_like(torch.empty(form.shape, dtype=form.dtype, device=device))


def _is_nothing_but_dye(given: Mapping[str, Any]) -> bool:
    """Whether every query of an attention with projections holds dye, and no mask keeps it from what it asks for."""
    free = "num_heads" in given and not given["need_weights"]
    masks = (given.get(name) for name in ("attn_mask", "key_padding_mask"))
    return free and all(mask is None for mask in masks) and bool(torch.isnan(given["query"]).any(-1).all())
