"""A network frozen while its anatomy is studied: evaluation mode, state reset, and everything restored afterwards."""

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch
from torch import nn

from dpap.anatomy.hidden_state import Rest, preserved_state
from dpap.anatomy.layers import layer_kind


@contextmanager
def frozen(model: nn.Module, *, training_paths: bool = False, rest: Iterable[Rest] = ()) -> Iterator[None]:
    """No gradients, no dropout, fixed statistics, no hidden state, no kernels that bypass modules.

    Args:
        model: the network; all that it holds is restored, also after an error.
        training_paths: run the paths of training, such as auxiliary heads: modules that contain weight layers are
            in training mode, layers, also those of several parts, in evaluation mode.
        rest: what its hidden state is reset to, as in `preserved_state`.
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
            module.training = training_paths and _contains_layers(module)
        for module in compiled:
            module._compiled_call_impl = None
        torch.backends.mha.set_fastpath_enabled(False)
        with ExitStack() as stack:
            for manager in (
                torch.no_grad(), _not_compiled(), *_plain(model), preserved_state(model, rest),
                warnings.catch_warnings(),
            ):  # fmt: skip
                stack.enter_context(manager)
            # of checkpoints, which are no use without gradients
            warnings.filterwarnings("ignore", message="None of the inputs have requires_grad")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, implementation in compiled.items():
            module._compiled_call_impl = implementation
        for module, mode in modes.items():
            module.training = mode


def _contains_layers(module: nn.Module) -> bool:
    """Whether a module is made of others, and not a layer, which may have parts such as an activation or observers."""
    if layer_kind(module) is not None or not any(True for _ in module.children()):
        return False
    own = (*module._parameters.values(), *module._buffers.values())
    parts = list(module.modules())[1:]
    return all(tensor is None for tensor in own) or any(layer_kind(part) is not None for part in parts)


def _plain(model: nn.Module) -> Iterator[AbstractContextManager[object]]:
    """No autocast around the look: rounded to half precision, what leaves a network as it is would not show."""
    for kind in {"cpu", *(parameter.device.type for parameter in model.parameters())} - {"meta"}:
        yield torch.autocast(kind, enabled=False)


def _not_compiled() -> AbstractContextManager[object]:
    """Functions and parts that the user compiled run as they are written; nothing is compiled for a look."""
    # importing the compiler takes seconds, and where it was not imported nothing is compiled
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
