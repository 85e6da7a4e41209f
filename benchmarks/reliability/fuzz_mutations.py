"""Damage: bytes, and values of JSON, changed at random, as bad disks, cut transfers and bad intentions change them."""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

Random = np.random.Generator

NUMBERS = (
    0,
    1,
    2,
    127,
    128,
    255,
    256,
    2**15 - 1,
    2**16 - 1,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
)
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        3,
        2**31,
        2**63,
        -(2**63),
        10**30,
        0.5,
        -0.0,
        1e308,
        float("inf"),
        float("nan"),
    ),
    *("", "x", "0", "../..", "\x00", "\x1b[31m", "é\ud800", "os:system", "<b>", "x" * 5000),
    *([], {}, [[]], [1, 2, 3], ["a"], {"a": 1}, {"class_path": "os.system"}, [None] * 20),
)


def damaged(raw: bytes, random: Random) -> bytes:
    """A few changes of bytes, half of them within the first 64."""
    content = bytearray(raw)
    for _ in range(random.integers(1, 4)):
        size = len(content)
        place = int(random.integers(0, (min(size, 64) if random.random() < 0.5 else size) + 1))
        length = int(random.choice([1, 2, 4, 8, 28, 512]))
        match int(random.integers(0, 10)):
            case 0 | 1 if place < size:
                content[place] ^= 1 << int(random.integers(8))
            case 2 | 3 | 4:
                number, width = NUMBERS[random.integers(len(NUMBERS))], int(random.choice([1, 2, 4, 8]))
                order = "little" if random.random() < 0.5 else "big"
                content[place : place + width] = (number % 256**width).to_bytes(width, order)
            case 5:
                del content[place:]
            case 6:
                del content[place : place + length]
            case 7:
                content[place:place] = content[place : place + length] * int(random.integers(1, 4))
            case 8:
                content[place:place] = random.bytes(length)
            case _:
                content[place : place + length] = bytes(min(length, size - place))
    return bytes(content)


def changed(value: Any, random: Random) -> Any:
    """A few nodes of a JSON value replaced, removed or repeated."""
    value = copy.deepcopy(value)
    for _ in range(random.integers(1, 3)):
        places = [(None, None), *places_of(value)]
        holder, key = places[random.integers(len(places))]
        new = copy.deepcopy(VALUES[random.integers(len(VALUES))])
        if holder is None:
            if random.random() < 0.1:
                value = new
        elif random.random() < 0.25:
            del holder[key]
        elif random.random() < 0.2 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif random.random() < 0.2 and isinstance(holder, dict):
            holder["x" if random.random() < 0.5 else f"{key}x"] = holder.pop(key)
        elif (
            random.random() < 0.4
            and isinstance(holder[key], int | float)
            and not isinstance(holder[key], bool)
        ):
            holder[key] += int(random.integers(-3, 4))
        else:
            holder[key] = new
    return value


def places_of(value: Any) -> list[tuple[Any, Any]]:
    """Every node of nested dicts and lists, as what holds it and its key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, each in items:
        found += [(value, key), *places_of(each)]
    return found


def other_tensor(tensor: Tensor, random: Random) -> Tensor:
    """A tensor of another size, precision, number of axes, or of other values."""
    match int(random.integers(0, 6)):
        case 0:
            kinds = (torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool, torch.bfloat16)
            return tensor.to(kinds[random.integers(len(kinds))])
        case 1 | 2 | 3 if tensor.ndim:
            shape = list(tensor.shape)
            shape[random.integers(len(shape))] = int(random.integers(0, 7))
            return torch.ones(shape, dtype=tensor.dtype)
        case 4:
            return tensor[None]
        case _:
            return tensor * 3
