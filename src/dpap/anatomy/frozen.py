"""A network frozen while its anatomy is studied: evaluation mode, state reset, and everything restored afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from dpap.anatomy.hidden_state import preserved_state


@contextmanager
def frozen(model: nn.Module, *, training_paths: bool = False) -> Iterator[None]:
    """No gradients, no dropout, fixed statistics, no hidden state, no kernels that bypass modules.

    Args:
        model: the network; its modes and states are restored, also after an error.
        training_paths: run the paths of training, such as auxiliary heads: modules that contain others are
            in training mode, single layers in evaluation mode.
    """
    modes = {module: module.training for module in model.modules()}
    compiled = {
        module: module._compiled_call_impl
        for module in model.modules()
        if getattr(module, "_compiled_call_impl", None) is not None
    }
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        for module in modes:
            module.training = training_paths and any(True for _ in module.children())
        for module in compiled:
            module._compiled_call_impl = None
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.no_grad(), preserved_state(model):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, implementation in compiled.items():
            module._compiled_call_impl = implementation
        for module, mode in modes.items():
            module.training = mode
