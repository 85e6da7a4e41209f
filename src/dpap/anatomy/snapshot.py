"""What a network holds, as it was: parameters, buffers and gradients, restored bit for bit.

Values are compared, never version counters: a fused observer, a write to `.data` and batch norm move none.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from dpap.anatomy.layers import layer_kind


@dataclass
class _Held:
    """A tensor as it was: where its values lie, the values, and what hangs on it."""

    tensor: Tensor
    data: Tensor
    values: list[tuple[Tensor, Tensor]]
    gradient: Tensor | None
    learns: bool

    @classmethod
    def of(cls, tensor: Tensor) -> "_Held":
        values = [(part, part.clone()) for part in _parts(tensor)]
        gradient = tensor.grad if tensor.is_leaf else None
        if gradient is not None:
            values += [(part, part.clone()) for part in _parts(gradient)]
        return cls(tensor, tensor.data, values, gradient, tensor.requires_grad)

    def restore(self) -> None:
        tensor = self.tensor
        if not _same_place(tensor, self.data):
            tensor.grad = None
            tensor.data = self.data
        for part, values in self.values:
            if not torch.equal(part, values):
                part.copy_(values)
        if tensor.is_leaf and tensor.grad is not self.gradient:
            tensor.grad = self.gradient
        if tensor.is_leaf and tensor.requires_grad != self.learns:
            tensor.requires_grad_(self.learns)


class Snapshot:
    """Tensors as they were.

    Args:
        modules: whose own parameters and buffers are kept.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._held: dict[int, _Held] = {}
        self._weights: set[int] = set()
        for module in modules:
            own = (*module._parameters.values(), *module._buffers.values())
            kept = [tensor for tensor in own if tensor is not None]
            for tensor in kept:
                self.take(tensor)
            if layer_kind(module) is not None:
                self._weights.update(id(tensor) for tensor in kept)

    def take(self, tensor: Tensor) -> None:
        """From now on a tensor is kept as it is now."""
        if is_lazy(tensor):
            return
        before, now = self._held.get(id(tensor)), _Held.of(tensor)
        if before is not None:
            # only values are written by a removal
            now.learns = before.learns
        self._held[id(tensor)] = now

    def restore(self) -> None:
        """Put back what was changed."""
        for held in self._held.values():
            held.restore()

    def restore_meanwhile(self, weights: bool = True) -> None:
        """Put back what was changed, but for tensors that stand in another precision meanwhile.

        Args:
            weights: also parameters and buffers of weight layers.
        """
        for key, held in self._held.items():
            if held.tensor.dtype == held.data.dtype and (weights or key not in self._weights):
                held.restore()

    @property
    def devices(self) -> set[torch.device]:
        """Where the tensors lie."""
        return {held.data.device for held in self._held.values()}


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """The bits of a tensor, as plain tensors that share its memory."""
    if is_traceable_wrapper_subclass(tensor):
        names, _ = tensor.__tensor_flatten__()
        for name in names:
            yield from _parts(getattr(tensor, name))
    elif tensor.layout is not torch.strided or tensor.is_nested:
        if tensor.layout is torch.sparse_coo:
            yield from _parts(tensor._indices())
            yield from _parts(tensor._values())
        elif tensor.layout in (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc):
            yield from _parts(tensor.values())
    elif tensor.device.type != "meta" and tensor.numel():
        size = tensor.element_size()
        start = size * int(tensor.storage_offset())
        length = size * (
            1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
        )
        # whole words are compared many times as fast as bytes
        words = 0 if start % 8 else length // 8
        yield _at(tensor, torch.int64, start // 8, words)
        yield _at(tensor, torch.uint8, start + 8 * words, length - 8 * words)


def _at(tensor: Tensor, dtype: torch.dtype, start: int, length: int) -> Tensor:
    """A part of the memory behind a tensor."""
    part = torch.empty(0, dtype=dtype, device=tensor.device)
    return part.set_(tensor.untyped_storage(), start, (length,))  # type: ignore[call-overload]


def _same_place(tensor: Tensor, data: Tensor) -> bool:
    """Whether a tensor still has the memory, the shape and the precision that it had."""
    if tensor.layout is not torch.strided or is_traceable_wrapper_subclass(tensor) or tensor.is_nested:
        return True
    return (
        tensor.dtype == data.dtype
        and tensor.device == data.device
        and tensor.shape == data.shape
        and tensor.stride() == data.stride()
        and tensor.storage_offset() == data.storage_offset()
        and tensor.untyped_storage().data_ptr() == data.untyped_storage().data_ptr()
    )
