"""Weights of which most are zero, in a file: a bit for each entry, and the values of those that are not zero."""

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpap.surgery.timesteps import AXES, BUFFER

BITS, VALUES = "..bits", "..values"
"""Endings of the names of what stands for a tensor: no module has an empty name, so nothing else ends so."""
HEADER = 256
"""So many bytes more the header may take for it."""
_ONES = torch.tensor([number.bit_count() for number in range(256)], dtype=torch.uint8)
_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Numbers of so many bytes: zero where all bits of a value are, so that -0.0 is a value."""


def pack(
    tensors: Mapping[str, Tensor], names: Iterable[str]
) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """Tensors as they are stored, and the shapes of those that are stored by bits and values, as they are smaller so.

    Args:
        tensors: contiguous, on the CPU.
        names: of those that may be: matrices and kernels among them are looked at.
    """
    stored, shapes = dict(tensors), {}
    for name in names:
        tensor = tensors[name]
        if tensor.ndim < 2 or tensor.itemsize not in _WHOLE or name.rpartition(".")[2] in (BUFFER, AXES):
            continue
        flat = tensor.flatten()
        alive = flat.view(_WHOLE[flat.itemsize]) != 0
        size = -(-len(flat) // 8) + int(alive.count_nonzero()) * flat.itemsize + HEADER + 2 * len(name)
        if size >= len(flat) * flat.itemsize or {name + BITS, name + VALUES} & tensors.keys():
            continue
        del stored[name]
        stored[name + BITS] = torch.from_numpy(np.packbits(alive.numpy(), bitorder="little"))
        stored[name + VALUES] = flat.view(_WHOLE[flat.itemsize])[alive].view(flat.dtype)
        shapes[name] = list(tensor.shape)
    return stored, shapes


def mispacked(stored: Mapping[str, Tensor], shapes: Any) -> str | None:
    """What in tensors that are stored by bits and values is not as `pack` makes it."""
    if not isinstance(shapes, dict):
        return f"expected an object as 'sparse', got {shapes!r}"
    for name, shape in shapes.items():
        if not (isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape)):
            return f"expected sizes of {name!r}, got {shape!r}"
        if name in stored or not {name + BITS, name + VALUES} <= stored.keys():
            return f"expected bits and values of {name!r} and no other tensor of it"
        bits, values = stored[name + BITS], stored[name + VALUES]
        entries = prod(shape)
        if bits.dtype != torch.uint8 or tuple(bits.shape) != (-(-entries // 8),):
            return f"expected a bit for each of {entries} entries of {name!r}, got {bits.dtype} {tuple(bits.shape)}"
        ones = int(_ONES[bits.int()].sum(dtype=torch.int64))
        if tuple(values.shape) != (ones,):
            return (
                f"expected {ones} values of {name!r}, one for each bit that is set, got {tuple(values.shape)}"
            )
        if entries % 8 and int(bits[-1]) >> entries % 8:
            return f"bits are set behind the last of {entries} entries of {name!r}"
    return None


def unpack(
    stored: Mapping[str, Tensor], shapes: Mapping[str, list[int]], own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors of a network, as `pack` was given them.

    A few bytes may stand for many zeros, so room is taken for no tensor that is larger than the network's own: such a
    one is a single zero, expanded, which does not fit.

    Args:
        stored: checked by `mispacked`.
        shapes: of those that are stored by bits and values.
        own: tensors of the network.
    """
    tensors = dict(stored)
    for name, shape in shapes.items():
        bits, values = tensors.pop(name + BITS), tensors.pop(name + VALUES)
        room = own[name].shape if name in own else ()
        if len(room) != len(shape) or any(size > most for size, most in zip(shape, room, strict=True)):
            tensors[name] = values.new_zeros(()).expand(shape)
            continue
        flat = torch.zeros(prod(shape), dtype=_WHOLE[values.itemsize])
        alive = np.unpackbits(bits.numpy(), count=len(flat), bitorder="little")
        flat[torch.from_numpy(alive).view(torch.bool)] = values.view(flat.dtype)
        tensors[name] = flat.view(values.dtype).view(shape)
    return tensors
