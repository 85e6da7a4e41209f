"""Generators of random numbers, and their state as it was."""

import random
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

Restore = Callable[[], object]


class RandomState:
    """The state of every generator of random numbers that a forward may draw from.

    Args:
        devices: on which the network lies.
        generators: that its modules hold: torch's, numpy's or Python's.
    """

    def __init__(self, devices: Iterable[torch.device], generators: Iterable[Any] = ()) -> None:
        self._restore = [*_global_states(devices), *(_state_of(one) for one in generators)]

    def restore(self) -> None:
        """Put them all back."""
        for restore in self._restore:
            restore()


def is_generator(value: Any) -> bool:
    """Whether a value draws random numbers."""
    numpy = sys.modules.get("numpy")
    kinds = (torch.Generator, random.Random)
    return isinstance(value, kinds) or (
        numpy is not None and isinstance(value, numpy.random.Generator | numpy.random.RandomState)
    )


def _global_states(devices: Iterable[torch.device]) -> Iterator[Restore]:
    python, cpu = random.getstate(), torch.get_rng_state()
    yield lambda: None if random.getstate() == python else random.setstate(python)
    yield lambda: torch.set_rng_state(cpu)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        state = numpy.random.get_state()
        yield lambda: numpy.random.set_state(state)
    for device in devices:
        module = None if device.type in ("cpu", "meta") else torch.get_device_module(device)
        if hasattr(module, "get_rng_state"):
            place = () if device.type == "mps" else (device,)
            yield _device_state(module, place)


def _device_state(module: Any, place: tuple[torch.device, ...]) -> Restore:
    state = module.get_rng_state(*place)
    return lambda: module.set_rng_state(state, *place)


def _state_of(generator: Any) -> Restore:
    if isinstance(generator, torch.Generator):
        state = generator.get_state()
        return lambda: generator.set_state(state)
    if isinstance(generator, random.Random):
        numbers = generator.getstate()
        return lambda: generator.setstate(numbers)
    bits = generator.bit_generator if hasattr(generator, "bit_generator") else generator._bit_generator
    bit_state = bits.state
    return lambda: setattr(bits, "state", bit_state)
