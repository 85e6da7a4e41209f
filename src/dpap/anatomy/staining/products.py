"""Products that a network makes by itself, such as attention and its projections: they are not of weight layers, which
emit without running, so they would take most of the time of every pass over a transformer.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from inspect import Signature, signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
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
_ATTENTION = {functional.scaled_dot_product_attention, functional.multi_head_attention_forward}


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
        self._idle = False

    @contextmanager
    def within_pass(self) -> Iterator[None]:
        """A pass in which weight layers do not run; its calls are compared with those of earlier ones one by one.

        After a pass without any such product it does nothing, for all other operations would only take longer.
        """
        if self._idle:
            yield
            return
        self._calls.clear()
        with self:
            yield
        self._idle = not self._calls

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        options = kwargs or {}
        given = _given(func, args, options)
        if given is None:
            with _every_nan(func, (args, options)):
                return func(*args, **options)
        values = {name: _mark(value) for name, value in given.items()}
        call = self._calls[func] = self._calls.get(func, -1) + 1
        made = self._made.get((func, call))
        if made is not None and _same(values, made.given):
            return _copy(made.output)
        if func is functional.linear:
            output = _product(**given)
        elif _is_nothing_but_dye(given):
            return nan_like(given["query"]), None
        else:
            with _every_nan(func, given):
                output = func(*args, **options)
        if not any(bool(torch.isnan(tensor).any()) for tensor in float_tensors(output)):
            self._keep((func, call), _Made(values, output))
        return output

    def _keep(self, key: tuple[Callable[..., Any], int], made: _Made) -> None:
        """Keep what was made last: most passes differ in what they dye, and alike in all that no dye reaches."""
        self._values -= self._made.pop(key).size if key in self._made else 0
        if self._values + made.size <= MOST:
            self._values += made.size
            self._made[key] = _Made(_copy(made.given), _copy(made.output))


def _given(func: Callable[..., Any], args: Any, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Arguments by name; None where the function is another one, a tensor is not plain, or something is drawn."""
    if func not in _KEPT:
        return None
    try:
        bound = _KEPT[func].bind(*args, **options)
    except TypeError:
        return None
    bound.apply_defaults()
    given = bound.arguments
    drawn = given.get("dropout_p", 0.0) > 0 and given.get("training", True)
    plain = all(type(each) in (Tensor, nn.Parameter) for each in all_tensors(given))
    return given if plain and not drawn else None


def _mark(value: Any) -> Any:
    """A value, or of a parameter what tells whether it is the same."""
    if not isinstance(value, nn.Parameter):
        return value
    return "parameter", id(value), value.data_ptr(), value._version


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(
        _equal(value, other[name]) if isinstance(value, Tensor) else value == other[name]
        for name, value in one.items()
    )


def _equal(one: Tensor, other: Any) -> bool:
    if not isinstance(other, Tensor) or one.dtype != other.dtype or one.device != other.device:
        return False
    return torch.equal(one, other)


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


def _every_nan(func: Callable[..., Any], given: Any) -> AbstractContextManager[None]:
    """Within it, attention passes dye on: fused kernels lose NaN in queries and keys where there are few keys."""
    if func not in _ATTENTION or not any(bool(torch.isnan(tensor).any()) for tensor in float_tensors(given)):
        return nullcontext()
    return sdpa_kernel(SDPBackend.MATH)


def _is_nothing_but_dye(given: Mapping[str, Any]) -> bool:
    """Whether every query of an attention with projections holds dye, and no mask keeps it from what it asks for."""
    free = "num_heads" in given and not given["need_weights"]
    masks = (given.get(name) for name in ("attn_mask", "key_padding_mask"))
    return free and all(mask is None for mask in masks) and bool(torch.isnan(given["query"]).any(-1).all())
