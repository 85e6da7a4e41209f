"""Which layers are used at all: whether anything comes out differently when their output is another."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from dpap.anatomy.frozen import frozen
from dpap.anatomy.hidden_state import reset_state
from dpap.anatomy.pytrees import Inputs, float_tensors, map_floats, run

STRENGTHS = (1.0, 30.0)
"""Noise that is added to a layer's output, in its largest value: a threshold may hide less."""


def unused_layers(
    model: nn.Module, example_inputs: Inputs, names: Collection[str], training_paths: bool = False
) -> set[str]:
    """Those of the named layers that run for nothing: whatever they emit, the network's outputs stay bit for bit.

    Args:
        model: the network.
        example_inputs: what its forward takes.
        names: of the layers in question.
        training_paths: whether paths that only training takes run.
    """
    unused = set()
    for name in sorted(names):
        with frozen(model, training_paths=training_paths):
            before = _outputs(model, example_inputs)
            alike = all(
                _same(before, _outputs(model, example_inputs, (name, strength))) for strength in STRENGTHS
            )
        if alike and before:
            unused.add(name)
    return unused


def output_widths(model: nn.Module, example_inputs: Inputs, training_paths: bool = False) -> set[int]:
    """Sizes of all axes of the network's outputs."""
    with frozen(model, training_paths=training_paths):
        return {size for tensor in _outputs(model, example_inputs) for size in tensor.shape}


def _outputs(
    model: nn.Module, example_inputs: Inputs, disturbed: tuple[str, float] | None = None
) -> list[Tensor]:
    handle = None
    if disturbed is not None:
        name, strength = disturbed
        handle = model.get_submodule(name).register_forward_hook(_noisy(strength))
    try:
        reset_state(model)  # and random numbers
        return [tensor.clone() for tensor in float_tensors(run(model, example_inputs))]
    finally:
        if handle is not None:
            handle.remove()


def _noisy(strength: float) -> Callable[..., Any]:
    generator = torch.Generator().manual_seed(1)

    def add(tensor: Tensor) -> Tensor:
        noise = torch.randn(tensor.shape, generator=generator).to(tensor)
        largest = tensor.abs().max() if tensor.numel() else 1.0
        return tensor + strength * (largest + 1) * noise

    return lambda module, args, output: map_floats(output, add)


def _same(before: list[Tensor], after: list[Tensor]) -> bool:
    return len(before) == len(after) and all(
        one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())
        for one, other in zip(before, after, strict=True)
    )
