"""Parameters that are computed from others whenever they are read (`torch.nn.utils.parametrize`), read without a trace.

In training mode a mere look would take part in training: spectral norm takes a step of its power iteration, and what
draws random numbers shifts those of the training after it.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from dpap.anatomy.randomness import RandomState


def read(module: nn.Module, name: str) -> Any:
    """An attribute of a module; a parametrized tensor as in evaluation mode, without gradients or side effects."""
    if not is_parametrized(module, name):
        return getattr(module, name)
    computed: ParametrizationList = module.parametrizations[name]  # type: ignore[index, assignment]
    random = RandomState({each.device for each in (*computed.parameters(), *computed.buffers())})
    try:
        with torch.no_grad(), ExitStack() as stack:
            for part in computed.modules():
                stack.enter_context(_on_copies(part))
            # not by the attribute: torch.nn.utils.parametrize.cached would hand on to training what was read here
            return computed()
    finally:
        random.restore()


@contextmanager
def _on_copies(module: nn.Module) -> Iterator[None]:
    """A module in evaluation mode on copies of its buffers and tensors, and afterwards as it was."""
    own = vars(module)
    before = dict(own)
    own.update({name: _copy(value) for name, value in before.items() if isinstance(value, Tensor)})
    own["_buffers"] = {name: _copy(buffer) for name, buffer in module._buffers.items()}
    own["training"] = False
    try:
        yield
    finally:
        own.clear()
        own.update(before)


def _copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None or isinstance(tensor, nn.Parameter) else tensor.detach().clone()
